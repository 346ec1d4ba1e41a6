"""``airbyte-events up``: one command from an Airbyte's address to a listener that everything else finds."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from airbyte_events.web.sessions import REQUESTED_WITH
from support.command_stage import CLIENT_SECRET, CommandStage, Started
from support.listener import bearer
from support.servers import free_port

pytestmark = pytest.mark.anyio

LAST = "  airbyte-events jobs"


@pytest.fixture
async def alone(stage: CommandStage) -> CommandStage:
    """The stage without its listener, and without any setting."""
    await stage.leave()
    stage.settings.clear()
    (stage.folder / "secret").write_text(f"{CLIENT_SECRET}\n")
    return stage


def options(stage: CommandStage, *, secret: str = "secret") -> list[str]:
    credentials = ["--client-id", "client", "--client-secret-file", str(stage.folder / secret)]
    return ["--airbyte-url", stage.sim.url, *credentials]


@asynccontextmanager
async def running(stage: CommandStage, *args: str) -> AsyncIterator[tuple[Started, list[str]]]:
    """A listener that is up, and what it has said."""
    async with stage.started("up", *args) as up:
        said = [await up.line()]
        while said[-1] != LAST:
            said.append(await up.line())
        yield up, said
        up.process.send_signal(signal.SIGTERM)
        assert await up.ended() == 0


def kept(stage: CommandStage) -> dict[str, str]:
    """The files that it keeps, all for their owner alone."""
    folder = stage.folder / "share" / "airbyte-events"
    names = ("settings.toml", "client-secret", "api-tokens", "webhook-tokens")
    files = {name: folder / name for name in names if (folder / name).exists()}
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files.values())
    return {name: file.read_text() for name, file in files.items()}


async def test_all_other_commands_need_no_settings_then(alone: CommandStage) -> None:
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    async with running(alone, *options(alone), "--port", port, "--webhooks", url) as (up, said):
        cmdline = await anyio.Path(f"/proc/{up.process.pid}/cmdline").read_text()
        assert f"  Dashboard: {url}/" in said
        assert any(
            "Airbyte itself sent" in line and f"is notification 1 of the listener {url}" in line for line in said
        )
        assert {alone.sim.workspace.webhook_url(kind) for kind in ("success", "failure")} == {
            f"{url}/webhooks/default/{kept(alone)['webhook-tokens'].strip()}"
        }
        # Nobody is told to do what was just done.
        assert "webhooks install" not in "\n".join(said)
        await alone.settled(alone.end(alone.start()))
        done = await alone.run("doctor")
        assert done.code == 0, done.out
        assert (await alone.run("trigger", "Orders")).code == 0
        assert (await alone.run("webhooks", "status")).code == 0
    secrets = {text.strip() for name, text in kept(alone).items() if name != "settings.toml"}
    assert len(secrets) == 3
    assert not [each for each in secrets if each in "\n".join(said) + up.err.read_text() + cmdline]


async def test_a_second_one_needs_no_answers(alone: CommandStage) -> None:
    port = str(free_port())
    async with running(alone, *options(alone), "--port", port):
        before = kept(alone)
    async with running(alone) as (_, said):
        assert f"listens on http://127.0.0.1:{port}" in "\n".join(said)
        assert (await alone.run("jobs")).code == 0
    assert kept(alone) == before
    async with alone.started("serve") as serve:
        assert (await serve.line()).endswith(f"listens on http://127.0.0.1:{port}")


async def test_sets_no_webhook_without_consent(alone: CommandStage) -> None:
    async with running(alone, *options(alone), "--port", str(free_port())) as (_, said):
        assert "  airbyte-events webhooks install --url URL" in said
    assert alone.sim.workspace.webhook_url("success") is None


async def test_what_it_prints_for_airflow_works_as_printed(alone: CommandStage) -> None:
    port = str(free_port())
    async with running(alone, *options(alone), "--port", port) as (_, said):
        (variable,) = [line for line in said if "AIRFLOW_CONN_" in line]
        shell = f"{variable}; printenv AIRFLOW_CONN_AIRBYTE_EVENTS_DEFAULT"
        connection = json.loads((await anyio.run_process(["bash", "-c", shell])).stdout)
        async with httpx.AsyncClient(base_url=connection["host"], trust_env=False) as http:
            shown = bearer(connection["password"])
            assert (await http.get("/v1/jobs", headers=shown)).status_code == 200
        (command,) = [line for line in said if "airflow connections add" in line]
        shell = f"airflow() {{ printf '%s\\n' \"$@\"; }}; {command}"
        args = (await anyio.run_process(["bash", "-c", shell])).stdout.decode().split()
        assert args[args.index("--conn-host") + 1] == f"http://127.0.0.1:{port}"
        assert args[args.index("--conn-password") + 1] == connection["password"]


async def test_shows_secrets_in_a_pipe_if_asked_to(alone: CommandStage) -> None:
    port = str(free_port())
    async with running(alone, *options(alone), "--port", port, "--show") as (_, said):
        token = kept(alone)["api-tokens"].strip()
        assert f"  URI: airbyte-events://:{token}@127.0.0.1:{port}" in said
        (code,) = re.findall(r"Dashboard: \S+/#log-in=(\S+) \(logs in once", "\n".join(said))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            ours = {"X-Requested-With": REQUESTED_WITH}
            for status in (200, 401):
                answer = await http.post("/session", json={"code": code}, headers=ours)
                assert answer.status_code == status
            assert (await http.get("/v1/jobs")).status_code == 200


async def test_asks_until_airbyte_accepts(alone: CommandStage) -> None:
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    code, seen = await alone.at_terminal(
        "up",
        "--port",
        port,
        answers=[
            (b"Airbyte's address", b"localhost:1"),
            (b"Airbyte's address", b"http://127.0.0.1:9"),
            (b"Airbyte's address", alone.sim.url.encode()),
            (b"Client id", b"client"),
            (b"Client secret", b"wrong"),
            (b"Client id", b""),
            (b"Client secret", CLIENT_SECRET.encode()),
            (b"At which address", b"listener:8484"),
            (b"At which address", url.encode()),
            (b"Change this in Airbyte?", b"y"),
        ],
        interrupt_at=LAST.encode(),
    )
    assert code == 0, seen
    assert "the Airbyte URL has no scheme: write http://localhost:1" in seen
    assert "does not respond at http://127.0.0.1:9" in seen
    # The first question for credentials is no failure.
    assert seen.index("requires a client id and secret") < seen.index("Client id")
    assert "rejects the client id and secret" in seen
    assert "not an address that begins with http://" in seen
    assert re.search(r"Dashboard: \S+/#log-in=\S+", seen)
    assert "arrived whole" in seen
    assert kept(alone)["client-secret"].strip() == CLIENT_SECRET
    assert alone.sim.workspace.webhook_url("success") is not None


async def test_ctrl_c_at_a_question_keeps_nothing(alone: CommandStage) -> None:
    code, _ = await alone.at_terminal("up", interrupt_at=b"Airbyte's address")
    assert (code, kept(alone)) == (130, {})


async def test_no_as_an_answer_leaves_airbyte_as_it_is(alone: CommandStage) -> None:
    port = str(free_port())
    code, _ = await alone.at_terminal(
        *("up", "--port", port, *options(alone)),
        answers=[(b"At which address", f"http://127.0.0.1:{port}".encode()), (b"Change this in Airbyte?", b"n")],
        interrupt_at=LAST.encode(),
    )
    assert (code, alone.sim.workspace.webhook_url("success")) == (0, None)


class TestNobodyCanBeAsked:
    async def test_an_address_is_wanted(self, alone: CommandStage) -> None:
        done = await alone.run("up")
        assert (done.code, done.out) == (2, "")
        assert "--airbyte-url: not set" in done.err

    async def test_a_refusal_is_told_and_nothing_kept(self, alone: CommandStage) -> None:
        (alone.folder / "wrong").write_text("wrong")
        done = await alone.run("up", *options(alone, secret="wrong"))
        assert done.code == 1
        assert "rejects the client id and secret" in done.out
        assert kept(alone) == {}

    async def test_a_port_that_is_taken_is_told_and_nothing_kept(self, alone: CommandStage) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            done = await alone.run("up", *options(alone), "--port", port)
        assert done.code == 2
        assert f"--port: can't listen on 127.0.0.1 port {port}" in done.err
        assert kept(alone) == {}

    async def test_each_remedy_names_an_option(self, alone: CommandStage) -> None:
        done = await alone.run("up", "--airbyte-url", alone.sim.url)
        assert (done.code, "set --client-id and --client-secret-file" in done.out) == (1, True)
        done = await alone.run("up", "--airbyte-url", alone.sim.url, "--client-id", "client")
        assert (done.code, "--client-secret-file: not set" in done.err, "for example" in done.err) == (2, True, False)
        done = await alone.run("up", *options(alone, secret=""))
        assert (done.code, "--client-secret-file: " in done.err, "Errno" in done.err) == (2, True, False)
        done = await alone.run("up", *options(alone), "--port", str(free_port()), "--webhooks", "listener")
        assert (done.code, "--webhooks: not an address" in done.err) == (2, True)

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"CONFIG": "airbyte-events.toml"}, "AIRBYTE_EVENTS_CONFIG: set, but up keeps settings of its own"),
            ({"INSTANCES__CLOUD__AIRBYTE_URL": "http://localhost"}, "AIRBYTE_EVENTS_INSTANCES__CLOUD__…: set, but"),
        ],
    )
    async def test_other_settings_are_left_to_serve(
        self, alone: CommandStage, settings: dict[str, str], said: str
    ) -> None:
        done = await alone.run("up", **settings)
        assert done.code == 2
        assert said in done.err
        assert "run airbyte-events serve" in done.err


async def test_what_is_kept_goes_to_no_other_airbyte(alone: CommandStage) -> None:
    async with running(alone, *options(alone), "--port", str(free_port())):
        pass
    done = await alone.run("trigger", "Orders", AIRBYTE_URL=alone.sim.url)
    assert done.code == 0, done.err
    other = alone.sim.url.replace("127.0.0.1", "localhost")
    done = await alone.run("trigger", "Orders", AIRBYTE_URL=other)
    assert done.code == 1
    assert "401" in done.err

"""``airbyte-events serve`` as a process: starts, drains, dies and comes back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from anyio.abc import Process, SocketStream

from airbyte_events.simulator import Fault, Script, Simulator, serve_simulator
from support.command import command, fresh_command
from support.listener import bearer
from support.loops import anyio_backend as anyio_backend
from support.process import environ_of, listener_process
from support.servers import connect
from support.waiting import a_moment

pytestmark = pytest.mark.anyio

SECRET = "canary-that-is-a-client-secret"
API_TOKEN = "canary-that-is-an-api-token-01"
WEBHOOK_TOKEN = "canary-that-is-a-webhook-token"
TOKENS = {"API_TOKENS": f"an-older-token-of-the-same-api,{API_TOKEN}", "WEBHOOK_TOKENS": WEBHOOK_TOKEN}


@dataclass
class Running:
    """A listener that has said where it is.

    :param said: on standard output.
    :param log: its standard error.
    """

    process: Process
    said: str
    log: Path
    http: httpx.AsyncClient
    url: str
    webhooks: str

    async def ended(self) -> int:
        with anyio.fail_after(30):
            return await self.process.wait()

    def signal(self, which: signal.Signals) -> None:
        self.process.send_signal(which)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a stream that has said hello."""
        async with self.http.stream("GET", "/v1/events", headers={"Accept": "text/event-stream"}) as response:
            assert response.status_code == 200
            lines = response.aiter_lines()
            assert await anext(lines) == "event: hello"
            yield lines

    async def begun_post(self, body: bytes) -> SocketStream:
        """A webhook of which one byte is missing."""
        stream = await connect(self.webhooks)
        head = f"POST {urlsplit(self.webhooks).path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.send(head.encode() + body[:-1])
        # What is asked after it is answered after the server has seen its beginning.
        assert (await self.http.get("/healthz")).status_code == 200
        return stream


def environ(folder: Path, airbyte: str, **settings: str) -> dict[str, str]:
    ours = {"AIRBYTE_URL": airbyte, "STORE": f"sqlite:///{folder}/data/events.db", "LOG_LEVEL": "debug"} | settings
    return environ_of(**ours)


@asynccontextmanager
async def listening(
    folder: Path, airbyte: str, program: Sequence[str] = (), /, *, token: str = API_TOKEN, **settings: str
) -> AsyncIterator[Running]:
    """:param program: the command line; by default it is forked, see :mod:`support.command`."""
    log = folder / f"log-{time.monotonic_ns()}"
    serve = [*(program or command()), "serve", "--port", "0"]
    env = environ(folder, airbyte, **settings)
    async with listener_process(serve, env, log) as (process, said, url):
        if match := re.search(r"API token  (\S+)", said):
            token = match[1]
        webhooks = re.findall(r"http://\S+/webhooks/default/\S+", said.replace("<webhook token>", WEBHOOK_TOKEN))[0]
        async with httpx.AsyncClient(
            base_url=url,
            headers=bearer(token),
            trust_env=False,
            timeout=30,
            # The listener closes idle connections when many are open, and a kept one could meet that.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        ) as http:
            yield Running(process, said, log, http, url, webhooks)
    logged = log.read_text()
    # I7, whatever the test was about.
    assert "Traceback" not in logged
    for secret in (SECRET, token, urlsplit(webhooks).path.rpartition("/")[2]):
        assert secret not in logged
    assert "[debug " in logged


@asynccontextmanager
async def airbyte(**options: Any) -> AsyncIterator[Simulator]:
    simulator = Simulator(**options)
    simulator.world.add_connection(Script.hanging())
    async with serve_simulator(simulator) as served:
        yield served


def start_job(simulator: Simulator) -> int:
    return simulator.world.start_job(next(iter(simulator.world.connections.values()))).id


async def refused(folder: Path, **settings: str) -> tuple[int, str]:
    """The exit code and standard error of a listener that does not start."""
    with anyio.fail_after(60):
        done = await anyio.run_process(
            [*command(), "serve", *([] if "PORT" in settings else ["--port", "0"])],
            env=environ(folder, "http://127.0.0.1:9", **{"LOG_LEVEL": "info"} | settings),
            stdin=DEVNULL,
            check=False,
        )
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


async def test_tokens_are_made_and_shown_once(tmp_path: Path) -> None:
    async with airbyte() as simulator:
        async with listening(tmp_path, simulator.url) as first:
            assert re.search(r"^airbyte-events \S+ listens on http://127\.0\.0\.1:\d+$", first.said, re.MULTILINE)
            assert f"{tmp_path}/data/events.db" in first.said
            assert "not shown again" in first.said
            token = first.http.headers["Authorization"].removeprefix("Bearer ")
            webhook_token = urlsplit(first.webhooks).path.rpartition("/")[2]
            assert min(len(token), len(webhook_token)) >= 22
            assert (await first.http.get("/v1/jobs")).status_code == 200
            assert (await first.http.post(first.webhooks, content=b"{}")).status_code == 200
            first.signal(signal.SIGTERM)
            assert await first.ended() == 0
        async with listening(tmp_path, simulator.url, token=token) as second:
            assert "API token" not in second.said
            assert "not shown again" not in second.said
            assert token not in second.said
            assert webhook_token not in second.said
            assert (await second.http.get("/v1/jobs")).status_code == 200
            path = f"/webhooks/default/{webhook_token}"
            assert (await second.http.post(path, content=b"{}")).status_code == 200
            assert (await second.http.get("/readyz")).json() == {"status": "ready", "faults": {}}


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
async def test_i8_ends_within_5_s_with_100_streams_open(tmp_path: Path, which: signal.Signals) -> None:
    ends: list[str] = []
    answers: list[dict[str, Any]] = []
    open_streams = 0
    ready = anyio.Event()

    async def follow(listener: Running) -> None:
        nonlocal open_streams
        async with listener.stream() as lines:
            open_streams += 1
            if open_streams == 100:
                ready.set()
            ends.append([line async for line in lines if line.startswith("event: ")][-1])

    async def poll(listener: Running) -> None:
        answers.append((await listener.http.get("/v1/events", params={"wait": 60})).json())

    body = json.dumps({"data": {"jobId": 7}}).encode()
    async with (
        airbyte() as simulator,
        listening(tmp_path, simulator.url, **TOKENS) as listener,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(100):
            tasks.start_soon(follow, listener)
        tasks.start_soon(poll, listener)
        with anyio.fail_after(30):
            await ready.wait()
        async with await listener.begun_post(body) as post:
            listener.signal(which)
            with anyio.fail_after(30):
                while not ends:
                    await anyio.lowlevel.checkpoint()
                await post.send(body[-1:])
                assert (await post.receive()).startswith(b"HTTP/1.1 202 ")
        assert await listener.ended() == 0
    assert ends == ["event: goaway"] * 100
    assert [answer["events"] for answer in answers] == [[]]
    assert "stopped" in listener.log.read_text()


async def test_i8_ends_within_5_s_though_clients_do_not(tmp_path: Path) -> None:
    async with (
        airbyte() as simulator,
        listening(tmp_path, simulator.url, **TOKENS) as listener,
        await listener.begun_post(b"{ }"),
    ):
        listener.signal(signal.SIGTERM)
        assert await listener.ended() == 0


async def test_i8_ends_within_5_s_though_a_disk_does_not_answer(tmp_path: Path) -> None:
    """A thread that reads can't be cancelled: here a file that gives nothing, as one on a network's disk may."""
    tokens = tmp_path / "tokens"
    tokens.write_text(API_TOKEN)
    settings = {"API_TOKENS_FILE": str(tokens), "WEBHOOK_TOKENS": WEBHOOK_TOKEN}
    async with airbyte() as simulator, listening(tmp_path, simulator.url, **settings) as listener:
        tokens.unlink()
        os.mkfifo(tokens)
        reading = None
        with anyio.fail_after(30):
            while reading is None:
                # There is nobody to write to until it is read.
                with contextlib.suppress(OSError):
                    reading = os.open(tokens, os.O_WRONLY | os.O_NONBLOCK)
                await anyio.sleep(0.02)
        listener.signal(signal.SIGTERM)
        assert await listener.ended() == 0
        os.close(reading)
        assert "shutdown takes too long" in listener.log.read_text()


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with (
        airbyte() as simulator,
        listening(tmp_path, simulator.url, **TOKENS) as listener,
        listener.stream() as lines,
        await listener.begun_post(b"{ }"),
    ):
        listener.signal(signal.SIGTERM)
        with anyio.fail_after(30):
            while await anext(lines) != "event: goaway":
                pass
        # What is begun is waited for; the second signal does not.
        listener.signal(signal.SIGINT)
        assert await listener.ended() == 128 + signal.SIGINT
    assert "stopping at once" in listener.log.read_text()


async def test_i1_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    async with airbyte() as simulator:
        job_id = start_job(simulator)
        async with listening(tmp_path, simulator.url, fresh_command(), **TOKENS) as listener:
            simulator.workspace.set_webhook(listener.webhooks)
            fault = simulator.add_fault(Fault(kind="status", status=503))
            job = simulator.world.end_job(simulator.world.jobs[job_id], "failed")
            (delivery,) = job.deliveries
            with anyio.fail_after(30):
                await delivery.over.wait()
            assert delivery.status == 202
            listener.signal(signal.SIGKILL)
            await listener.ended()
        simulator.faults.clear(fault.id)
        # Nothing but the inbox can know of it: the job is too old for the first look.
        async with listening(tmp_path, simulator.url, **TOKENS) as listener:
            page = (await listener.http.get("/v1/events", params={"after": await origin(listener), "wait": 10})).json()
            assert [each["type"] for each in page["events"]] == ["io.airbyte.job.failed"]
            assert page["events"][0]["data"]["error"]["message"] == "Something failed"
            with anyio.fail_after(30):
                while (kept := (await listener.http.get("/v1/notifications")).json()["notifications"])[0][
                    "outcome"
                ] == "pending":
                    await a_moment()
            assert [(each["job_id"], each["outcome"]) for each in kept] == [(job_id, "confirmed")]


async def origin(listener: Running) -> str:
    """The cursor before the first event."""
    epoch, _, _ = (await listener.http.get("/v1/events")).json()["cursor"].partition("-")
    return f"{epoch}-0"


async def test_the_receiver_can_have_a_port_of_its_own(tmp_path: Path) -> None:
    async with airbyte() as simulator, listening(tmp_path, simulator.url, WEBHOOK_PORT="0", **TOKENS) as listener:
        apart = listener.webhooks.partition("/webhooks")[0]
        assert apart != listener.url
        assert f"listens on {listener.url} and {apart}\n" in listener.said
        assert (await listener.http.post(listener.webhooks, content=b"{}")).status_code == 200
        elsewhere = urlsplit(listener.webhooks).path
        assert (await listener.http.post(elsewhere, content=b"{}")).status_code == 404
        for path in ("/healthz", "/readyz", "/v1/events", "/v1/jobs", "/"):
            assert (await listener.http.get(apart + path)).status_code == 404
        listener.signal(signal.SIGTERM)
        assert await listener.ended() == 0


async def test_i7_secrets_are_in_no_log_line(tmp_path: Path) -> None:
    """The checks are in ``listening``; here is what could bring them out, at the level that says most."""
    async with airbyte(client_id="id", client_secret=SECRET, token_lifetime=0.05) as simulator:
        credentials = {"CLIENT_ID": "id", "CLIENT_SECRET": SECRET}
        async with listening(tmp_path, simulator.url, **TOKENS, **credentials) as listener:
            simulator.workspace.set_webhook(listener.webhooks)
            job_id = start_job(simulator)
            refs = [{"instance": "default", "job_id": job_id}]
            async with listener.stream() as lines:
                assert (await listener.http.post("/v1/watches", json={"jobs": refs})).status_code == 200
                simulator.world.end_job(simulator.world.jobs[job_id], "succeeded")
                with anyio.fail_after(30):
                    while "io.airbyte.job.succeeded" not in await anext(lines):
                        pass
            for status in (401, 429, 500):
                simulator.add_fault(Fault(kind="status", status=status, count=1))
            for method in ("GET", "POST", "PUT"):
                await listener.http.request(method, listener.webhooks, content=b"no json")
                await listener.http.request(method, listener.webhooks + "x", content=b"no json")
            await listener.http.post("/v1/watches", json={"jobs": [{"instance": "default", "job_id": 99}]})
            listener.signal(signal.SIGTERM)
            assert await listener.ended() == 0
        assert API_TOKEN not in listener.said
        async with listening(
            tmp_path, simulator.url, **TOKENS, **credentials | {"CLIENT_SECRET": SECRET + "x"}
        ) as wrong:
            with anyio.fail_after(30):
                while "polling failed: instance=default" not in wrong.log.read_text():
                    await wrong.http.get("/healthz")
                    await a_moment()


class TestRefusesToStart:
    async def test_on_a_port_in_use(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            code, said = await refused(tmp_path, PORT=str(port))
        assert code == 2
        assert said.startswith(f"airbyte-events: can't listen on 127.0.0.1 port {port}: Address already in use; set ")
        assert said.count("\n") == 1

    async def test_on_a_store_that_can_not_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "data").write_text("")
        code, said = await refused(tmp_path)
        assert (code, said.count("\n")) == (1, 1)
        assert said.startswith(f"airbyte-events: can't open the store {tmp_path}/data/events.db: ")

    async def test_on_a_store_in_use(self, tmp_path: Path) -> None:
        async with airbyte() as simulator, listening(tmp_path, simulator.url, fresh_command(), **TOKENS) as listener:
            code, said = await refused(tmp_path)
            assert (code, said.count("\n")) == (1, 1)
            assert f"{tmp_path}/data/events.db is in use by process {listener.process.pid}" in said
            assert (await listener.http.get("/readyz")).status_code == 200

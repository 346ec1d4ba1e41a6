"""I7: canaries are planted wherever there is a secret, everything goes wrong that can, and then all that can be read is
searched for them, in any form that they could have been put into."""

from __future__ import annotations

import base64
import json
import logging
import secrets
import signal
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL
from typing import Any
from urllib.parse import quote, urlsplit

import anyio
import httpx
import pytest

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings import load
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.hooks.listener import ListenerHook
from airbyte_events_provider.triggers.airbyte import AirbyteSyncTrigger
from support.command import command, fresh_command
from support.exposed import body
from support.listener import bearer
from support.loops import anyio_backend as anyio_backend
from support.process import environ_of, listener_process
from support.servers import ScriptedServer, connect
from support.waiting import a_moment

pytestmark = pytest.mark.anyio

SERVE = [*fresh_command(), "serve", "--port", "0"]
BASE = "/api/public/v1"
CALLS: list[tuple[Any, ...]] = [
    ("test_connection",),
    ("get_job_status", 1),
    ("get_job_details", 2),
    ("submit_sync_connection", "c"),
    ("wait_for_job", 4, 0.05, 0.5),
]
TELLING = 10
"""Characters in a row that give a part of a secret away."""


@dataclass
class Canaries:
    """Secrets by what they are, and all that was read."""

    values: dict[str, str] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)

    def plant(self, what: str, *, awkward: bool = False) -> str:
        """:param awkward: with characters that are written otherwise in URLs and JSON."""
        value = secrets.token_hex(8) + ('/+"=&%' if awkward else "") + secrets.token_hex(8)
        self.values[what] = value
        return value

    def saw(self, where: str, text: str | bytes) -> None:
        self.read[where] = self.read.get(where, "") + (text.decode("latin-1") if isinstance(text, bytes) else text)

    def answered(self, where: str, answer: httpx.Response) -> None:
        self.saw(where, f"{answer.status_code} {answer.reason_phrase} {answer.headers.multi_items()}\n{answer.text}\n")

    def check(self) -> None:
        found = []
        for what, value in self.values.items():
            forms = set(_forms(value))
            for where, text in self.read.items():
                if leaked := next((form for form in forms if form in text), None):
                    at = text.index(leaked)
                    found.append(f"{what} in {where}: …{text[max(0, at - 80) : at + 80]}…")
        assert not found, "\n".join(found)


def _forms(value: str) -> Iterator[str]:
    raw = value.encode()
    wholes = [value, quote(value, safe=""), json.dumps(value)[1:-1], raw.hex(), repr(value)[1:-1]]
    # Wherever it stands in what is encoded: but for the characters at its ends, which the neighbours change.
    shifted = [b"x" * shift + raw for shift in range(3)]
    wholes += [base64.b64encode(text).decode().rstrip("=")[4:-4] for text in shifted]
    wholes += [base64.urlsafe_b64encode(text).decode().rstrip("=")[4:-4] for text in shifted]
    for whole in wholes:
        for text in (whole, whole[::-1]):
            for start in range(len(text) - TELLING + 1):
                yield text[start : start + TELLING]


@pytest.fixture
def canaries() -> Iterator[Canaries]:
    canaries = Canaries()
    yield canaries
    canaries.check()


@pytest.mark.parametrize("leak", ["{}", "user:{}", "x{}y", "%{}%"])
def test_the_search_finds_what_leaks(leak: str) -> None:
    canaries = Canaries()
    value = canaries.plant("a secret", awkward=True)
    text = leak.format(value)
    for form in (
        text,
        text[3:16],
        text[::-1],
        quote(text, safe=""),
        json.dumps(text),
        text.encode().hex(),
        base64.b64encode(text.encode()).decode(),
        base64.urlsafe_b64encode(text.encode()).decode(),
    ):
        canaries.read = {"a log": f"before {form} after"}
        with pytest.raises(AssertionError, match="a secret in a log"):
            canaries.check()
    canaries.read = {"a log": secrets.token_hex(5_000)}
    canaries.check()


def see_process(canaries: Canaries, pid: int) -> None:
    """What everybody on the machine can read of a process."""
    folder = Path(f"/proc/{pid}")
    for name in ("cmdline", "comm", "stat", "status"):
        if (file := folder / name).exists():
            canaries.saw(f"/proc/PID/{name}", file.read_bytes())
    for comm in folder.glob("task/*/comm"):
        canaries.saw("thread names", comm.read_bytes())


def see_files(canaries: Canaries, folder: Path, pattern: str) -> None:
    for file in folder.glob(pattern):
        canaries.saw(f"the files {pattern}", file.read_bytes())


@asynccontextmanager
async def listening(
    canaries: Canaries, folder: Path, env: dict[str, str]
) -> AsyncIterator[tuple[httpx.AsyncClient, Path]]:
    """A listener that is ended by a signal; what it wrote is read, whatever happens."""
    log = folder / f"log-{secrets.token_hex(4)}"
    said = ""
    try:
        async with (
            listener_process(SERVE, env, log) as (process, said, url),
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as http,
        ):
            yield http, log
            see_process(canaries, process.pid)
            process.send_signal(signal.SIGTERM)
            with anyio.fail_after(30):
                assert await process.wait() == 0
    finally:
        canaries.saw("standard output", said)
        canaries.saw("standard error", log.read_bytes())


def job(job_id: int, status: str = "succeeded") -> dict[str, Any]:
    now = format_time(utcnow())
    return {
        "jobId": job_id,
        "status": status,
        "jobType": "sync",
        "startTime": now,
        "connectionId": "c",
        "lastUpdatedAt": now,
    }


def script(server: ScriptedServer, canaries: Canaries) -> None:
    """An Airbyte that answers, then fails in every way, telling what it was asked with."""
    access = canaries.values["access token"]
    secret = canaries.values["client secret"]
    told = {
        "title": f"no {secret}",
        "detail": f"Bearer {access} {secret}",
        "type": "error:x",
        "data": {"message": secret},
    }
    failing = [
        *(server.reply(status, told) for status in (400, 401, 403, 404, 409, 422, 429, 500, 502, 503)),
        server.reply(302, None, {"Location": f"http://127.0.0.1:9/{access}?secret={quote(secret)}"}),
        server.reply(200, body=f"<html>{access} {secret}".encode()),
        server.reply(200, {"data": f"{access} {secret}"}),
        server.reply(200, None, {"Content-Encoding": "gzip"}, body=access.encode()),
        server.raw(f"HTTP/1.1 500 {access}\r\nX: {secret}\r\n\r\n".encode()),
        server.raw(f"{access} {secret}".encode()),
        server.reset(),
    ]
    token = server.reply(200, {"access_token": access, "token_type": "Bearer", "expires_in": 900})
    server.on(f"POST {BASE}/applications/token", token, *failing[:4], token, *failing[10:], token)
    server.on(f"GET {BASE}/jobs", server.reply(200, {"data": []}), *failing, server.reply(200, {"data": []}))
    for number in range(1, 40):
        steps = [failing[number % len(failing)], server.reply(200, job(number))]
        server.on(f"GET {BASE}/jobs/{number}", *steps)
    server.on(f"GET {BASE}/jobs/1", server.reply(200, job(1)))


async def test_i7_nothing_tells_a_secret_of_a_listener(  # noqa: C901
    canaries: Canaries, tmp_path: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = canaries.plant("access token")
    client_secret = canaries.plant("client secret", awkward=True)
    api_tokens = [canaries.plant(f"API token {number}") for number in range(2)]
    webhook_tokens = [canaries.plant(f"webhook token {number}") for number in range(2)]
    hook = canaries.plant("forward URL")
    gone = canaries.plant("forward URL that nobody answers")
    script(server, canaries)
    failing = [server.reply(status, {"echo": hook}, {"Location": f"/{hook}"}) for status in (302, 404, 500)]
    server.on(f"POST /services/{hook}", server.reply(200), *failing, server.reset(), server.reply(200))
    files = {"CLIENT_SECRET": client_secret, "API_TOKENS": ",".join(api_tokens)}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    env = environ_of(
        AIRBYTE_URL=f"{server.url}{BASE}",
        CLIENT_ID="client",
        **{f"{name}_FILE": str(tmp_path / name) for name in files},
        WEBHOOK_TOKENS=",".join(webhook_tokens),
        FORWARD_URLS=f"{server.url}/services/{hook},http://127.0.0.1:9/{gone}",
        STORE=f"sqlite:///{tmp_path}/events.db",
        LOG_LEVEL="debug",
        POLL_INTERVAL="0.1",
        POLL_INTERVAL_PROVEN="0.1",
        POLL_INTERVAL_IDLE="0.1",
    )
    async with listening(canaries, tmp_path, env) as (http, _):
        webhooks = [f"/webhooks/default/{token}" for token in webhook_tokens]

        async def ask(method: str, path: str, **options: Any) -> httpx.Response:
            answer = await http.request(method, path, **options)
            canaries.answered(f"the answer to {method} {urlsplit(path).path.rpartition('/')[0]}", answer)
            return answer

        authorized = bearer(api_tokens[0])
        assert (await ask("POST", webhooks[0], content=body(1))).status_code == 202
        assert (await ask("GET", "/v1/jobs", headers=authorized)).status_code == 200
        # Shown in the wrong place, to the wrong door, cut short, too long, otherwise encoded.
        for token in (*webhook_tokens, *api_tokens, client_secret, access):
            for shown in (token, token[:-1], token + "x", quote(token, safe=""), token.upper()):
                for method in ("GET", "POST", "PUT"):
                    await ask(method, f"/webhooks/default/{quote(shown, safe='')}", content=b"no json")
                await ask("GET", f"/v1/jobs?token={quote(shown)}", headers=bearer(shown))
            basic = base64.b64encode(f"user:{token}".encode()).decode()
            await ask("GET", "/v1/jobs", headers={"Authorization": f"Basic {basic}", "Cookie": f"t={token}"})
            await ask("GET", f"/{quote(token, safe='')}")
            await ask("GET", f"/v1/events?after={quote(token)}", headers={"Cookie": f"token={token}"})
        for content in (b"", b"{", b"[]", b"x" * 70_000, body(2), body(2)):
            for path in webhooks:
                await ask("POST", path, content=content)
        for number in range(3, 30):
            await ask("POST", webhooks[number % 2], content=body(number))
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/", "/v1/notifications", "/v1/jobs"):
            await ask("GET", path, headers=authorized)
        watched = {"jobs": [{"instance": "default", "job_id": number} for number in range(1, 35)]}
        await ask("POST", "/v1/watches", headers=authorized, json=watched)
        await ask("POST", "/v1/notifications/1/replay", headers=authorized)
        with anyio.fail_after(30):
            # All kinds of answers were given, to the poller and to the forwarder.
            while server.served[f"GET {BASE}/jobs"] < 6 or server.served[f"POST /services/{hook}"] < 3:
                await ask("GET", "/v1/events?wait=0.1", headers=authorized)
        await ask("GET", "/v1/notifications", headers=authorized)
        await ask("GET", "/v1/jobs/default/1", headers=authorized)
        async with await connect(str(http.base_url)) as stream:
            await stream.send(
                f"GET /webhooks/default/{webhook_tokens[0]}\x00 HTTP/9\r\n{api_tokens[0]}\r\n\r\n".encode()
            )
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                canaries.saw("the answer to what is no HTTP", await stream.receive())
    see_files(canaries, tmp_path, "events.db*")
    assert "[debug " in canaries.read["standard error"]
    assert "forward" in canaries.read["standard error"]


async def test_i7_nothing_tells_a_secret_of_what_is_behind_a_proxy(canaries: Canaries, tmp_path: Path) -> None:
    env = environ_of(
        AIRBYTE_URL="http://airbyte.invalid",
        STORE="memory:",
        LOG_LEVEL="debug",
        CLIENT_ID="client",
        CLIENT_SECRET=canaries.plant("client secret", awkward=True),
        API_TOKENS=canaries.plant("API token"),
        WEBHOOK_TOKENS=canaries.plant("webhook token"),
    )
    proxy = f"http://user:{canaries.plant('proxy password')}@127.0.0.1:9"
    env |= {"HTTP_PROXY": proxy, "http_proxy": proxy, "NO_PROXY": "", "no_proxy": ""}
    async with listening(canaries, tmp_path, env) as (http, log):
        with anyio.fail_after(30):
            while "polling failed: instance=default" not in log.read_text():
                canaries.answered("an answer", await http.get("/readyz"))
                await a_moment()


def test_i7_nothing_tells_a_secret_of_settings_that_are_refused(
    canaries: Canaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    password, api_token = canaries.plant("password"), canaries.plant("API token")
    ours = {"AIRBYTE_URL": "http://airbyte.invalid", "API_TOKENS": api_token, "STORE": "memory:"}
    ours |= {"CLIENT_ID": "client", "CLIENT_SECRET": canaries.plant("client secret", awkward=True)}
    wrong: list[dict[str, str]] = [
        {"STORE": f"postgresql://user:{password}@[127.0.0.1/db"},
        {"STORE": f"mysql://user:{password}@127.0.0.1/db"},
        {"AIRBYTE_URL": f"http://user:{password}@airbyte.invalid"},
        {"AIRBYTE_URL": f"http://airbyte.invalid/?secret={password}"},
        {"TOKEN_URL": f"ftp://user:{password}@x"},
        {"FORWARD_URLS": f"ftp://x/{password}"},
        {"FORWARD_URLS": f"nothing={password}"},
        {"API_TOKENS": f"{password},x y,ü"},
        {"WEBHOOK_TOKENS": api_token},
        {"CLIENT_SECRET_FILE": password},
        {"API_TOKENS_FILE": password, "API_TOKENS": ""},
        {"PORT": password},
        {"TLS_CERTFILE": password},
        {"LOG_LEVEL": password},
        {"WEBHOOK_ALLOW": password},
        {"TRUSTED_PROXIES": password},
    ]
    for given in wrong:
        with monkeypatch.context() as patch:
            for name, value in (ours | given).items():
                patch.setenv(f"AIRBYTE_EVENTS_{name}", value)
            with pytest.raises(SettingsError) as refusal:
                load()
        traced = "".join(traceback.format_exception(refusal.value))
        canaries.saw(f"what a wrong {next(iter(given))} says", f"{refusal.value} {refusal.value!r} {traced}")


async def test_i7_nothing_tells_a_secret_when_a_listener_does_not_start(canaries: Canaries) -> None:
    password = canaries.plant("password")
    ours = {"AIRBYTE_URL": "http://airbyte.invalid", "LOG_LEVEL": "debug"}
    ours |= {"CLIENT_ID": "client", "CLIENT_SECRET": canaries.plant("client secret", awkward=True)}
    serve = [*command(), "serve", "--port", "0"]
    unreachable = f"postgresql://user:{password}@127.0.0.1:9/db?connect_timeout=2"
    for given in ({"STORE": unreachable}, {"STORE": "memory:", "API_TOKENS": password[:5]}):
        with anyio.fail_after(30):
            done = await anyio.run_process(serve, env=environ_of(**ours | given), stdin=DEVNULL, check=False)
        assert done.returncode in {1, 2}, given
        canaries.saw("what it says", done.stdout + done.stderr)
        assert b"Traceback" not in done.stderr


def test_i7_settings_do_not_show_theirs(canaries: Canaries, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIENT_SECRET", "API_TOKENS", "WEBHOOK_TOKENS"):
        monkeypatch.setenv(f"AIRBYTE_EVENTS_{name}", canaries.plant(name))
    monkeypatch.setenv("AIRBYTE_EVENTS_AIRBYTE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AIRBYTE_EVENTS_CLIENT_ID", "client")
    monkeypatch.setenv("AIRBYTE_EVENTS_FORWARD_URLS", f"https://hooks.example/{canaries.plant('forward URL')}")
    monkeypatch.setenv("AIRBYTE_EVENTS_STORE", f"postgresql://user:{canaries.plant('password')}@127.0.0.1/db")
    settings = load()
    canaries.saw("the settings", f"{settings!r} {settings} {settings.model_dump()} {settings.store} {settings.store!r}")


async def test_i7_nothing_tells_a_secret_of_airflow(  # noqa: C901
    canaries: Canaries,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Hooks and the trigger, in this process, through a success and every failure."""
    caplog.set_level(logging.DEBUG)
    # It writes down what a server answers, headers and all.
    caplog.set_level(logging.INFO, "httpcore")
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__POLL_INTERVAL", "0.05")
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__FALLBACK_AFTER", "0.05")
    canaries.plant("access token")
    client_secret = canaries.plant("client secret", awkward=True)
    api_token = canaries.plant("API token")
    proxy_password = canaries.plant("proxy password")
    script(server, canaries)
    told = {"error": f"unauthorized {api_token}", "message": api_token}
    for status, route in ((401, "GET /v1/events"), (500, "POST /v1/watches"), (401, "GET /v1/jobs")):
        server.on(
            route, server.reply(status, told), server.reset(), server.reply(302, told, {"Location": f"/{api_token}"})
        )

    def connect(conn_id: str, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    airbyte = {"conn_type": "airbyte", "login": "client", "password": client_secret}
    url = f"{server.url}{BASE}"
    connect("good", **airbyte, host=url)
    connect("listened", **airbyte, host=url, extra=json.dumps({"listener_conn_id": "feed"}))
    connect("feed", conn_type="airbyte_events", host=server.url, password=api_token)
    proxies = {
        "http": f"http://user:{proxy_password}@127.0.0.1:9",
        "https": f"http://user:{proxy_password}@127.0.0.1:9",
    }
    connect("proxied", **airbyte, host=url, extra=json.dumps({"proxies": proxies, "timeout": 2}))
    connect("wrong", **airbyte, host=f"ftp://user:{proxy_password}@x", extra=json.dumps({"timeout": proxy_password}))
    connect("odd", **airbyte, host=url, extra=json.dumps({"proxies": proxy_password}))

    def call(what: str, function: Any, *arguments: Any) -> None:
        try:
            canaries.saw(what, repr(function(*arguments)))
        except Exception as exc:
            canaries.saw(what, f"{exc!r} {exc} {''.join(traceback.format_exception(exc))}")

    def hooks() -> None:
        for conn_id in ("good", "listened", "proxied", "wrong", "odd", "none"):
            hook = AirbyteHook(conn_id, timeout=2)
            canaries.saw("a hook's repr", repr(hook))
            for name, *arguments in CALLS if conn_id == "good" else CALLS[:2]:
                call(f"{name} of {conn_id}", getattr(hook, name), *arguments)
            call(f"settings of {conn_id}", lambda hook=hook: hook.settings)
        feed = ListenerHook("feed")
        canaries.saw("a hook's repr", repr(feed))
        call("test_connection of the feed", feed.test_connection)

    with anyio.fail_after(60):
        await anyio.to_thread.run_sync(hooks)

    async def fire(conn_id: str, job_id: int) -> None:
        trigger = AirbyteSyncTrigger(
            job_id=job_id, conn_id=conn_id, end_time=time.time() + 1.5, poll_interval=0.05, connection_id="c"
        )
        canaries.saw("a trigger", f"{trigger!r} {trigger.serialize()}")
        try:
            async for event in trigger.run():
                canaries.saw("a trigger's event", f"{event!r} {event.payload}")
        except Exception as exc:
            canaries.saw("a trigger's error", f"{exc!r} {''.join(traceback.format_exception(exc))}")

    with anyio.fail_after(60):
        for conn_id in ("good", "listened", "proxied", "wrong", "none"):
            # Where Airbyte can't be reached they would go on asking for a while.
            with anyio.move_on_after(3):
                async with anyio.create_task_group() as tasks:
                    for job_id in (1, 5, 9):
                        tasks.start_soon(fire, conn_id, job_id)
    out, err = capfd.readouterr()
    canaries.saw("standard output", out)
    canaries.saw("standard error", err)
    canaries.saw("logs", caplog.text)
    for record in caplog.records:
        canaries.saw("log records", f"{record.args!r} {record.__dict__.get('positional_args')!r}")
    assert server.count(f"GET {BASE}/jobs/1") > 0

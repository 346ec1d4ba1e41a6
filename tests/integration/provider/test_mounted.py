"""The listener within an API server: Airflow's own lifespan around it, and uvicorn with both of its parsers."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings import Settings
from airbyte_events.store.registry import store_location
from airbyte_events.web.server import bind, url_of
from airbyte_events_provider.plugins import mounted
from airbyte_events_provider.plugins.mounted import MountedListener, load_settings
from support.airflow_stage import AirflowStage
from support.listener import API_TOKEN, CLIENT_SECRET, WEBHOOK_TOKEN, bearer, instance_of, settings_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries that an API server brings together
    from airflow.api_fastapi.app import lifespan

pytestmark = pytest.mark.anyio

BODY = json.dumps({"text": "Hello World!"}).encode()


class Server(uvicorn.Server):
    """Leaves signals alone, and tells when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@dataclass(kw_only=True)
class Worker:
    """An API server's worker, in this process."""

    url: str
    server: Server

    async def health(self) -> dict[str, Any]:
        async with httpx.AsyncClient() as http:
            answer: dict[str, Any] = (await http.get(f"{self.url}/healthz")).json()
            return answer

    async def post(self, body: bytes = BODY, token: str = WEBHOOK_TOKEN) -> tuple[int, dict[str, Any]]:
        """A POST as Java's client sends it over plain HTTP."""
        host, _, port = self.url.removeprefix("http://").partition("/")[0].partition(":")
        head = (
            f"POST /airbyte-events/webhooks/default/{token} HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            f"Content-Length: {len(body)}\r\nHost: {host}:{port}\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA"
            "AAUAAEAA\r\nUpgrade: h2c\r\nContent-Type: application/json\r\n\r\n"
        )
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(head.encode() + body)
            answer = b""
            while b"}" not in answer:
                answer += await stream.receive()
        status, _, rest = answer.partition(b"\r\n")
        return int(status.split()[1]), json.loads(rest.partition(b"\r\n\r\n")[2])


@dataclass(kw_only=True)
class Workers:
    """Starts API servers' workers, all with the same store."""

    settings: Settings

    @asynccontextmanager
    async def start(self, parser: str = "h11", load: Callable[[], Settings] | None = None) -> AsyncIterator[Worker]:
        app = FastAPI(lifespan=lifespan)
        app.mount("/airbyte-events", MountedListener(load or (lambda: self.settings)))
        config = uvicorn.Config(
            app, http=parser, lifespan="on", log_config=None, ws="none", timeout_graceful_shutdown=1
        )
        server = Server(config)
        with bind("127.0.0.1", 0) as bound:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [bound])
                await server.up.wait()
                yield Worker(url=url_of(bound) + "/airbyte-events", server=server)
                server.should_exit = True


@pytest.fixture
def workers(stage: AirflowStage, tmp_path: Path) -> Workers:
    store = store_location(f"sqlite:///{tmp_path / 'events.db'}")
    return Workers(settings=settings_of(instance_of(stage.sim.url, secret=CLIENT_SECRET), store=store))


async def test_a_webhook_becomes_an_event_on_the_feed(stage: AirflowStage, workers: Workers) -> None:
    async with workers.start() as worker:
        stage.sim.workspace.set_webhook(f"{worker.url}/webhooks/default/{WEBHOOK_TOKEN}")
        stage.connect_listener(worker.url)
        stage.listened = True
        job = stage.start()
        told = await stage.completed(job)
        assert told["status"] == "success"
        assert (await worker.health())["role"] == "listening"


async def test_h11_hands_over_the_body_and_httptools_is_told_of(workers: Workers) -> None:
    async with workers.start("h11") as worker:
        assert (await worker.post())[0] == 200
    async with workers.start("httptools") as worker:
        status, answer = await worker.post()
        assert status == 400
        assert "httptools" in answer["error"]
        # An honest empty body, and a request without the offer, are the receiver's matter.
        async with httpx.AsyncClient() as http:
            url = f"{worker.url}/webhooks/default/{WEBHOOK_TOKEN}"
            assert (await http.post(url, content=b"")).json()["error"] != answer["error"]
            assert (await http.post(url, content=BODY)).status_code == 200
        assert (await worker.health())["warnings"] == [mounted.PARSER]


async def test_a_second_process_with_the_same_store_says_what_to_do(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    async with workers.start() as first, workers.start() as second:
        assert (await first.health())["role"] == "listening"
        assert (await second.health())["role"] == "failed"
        assert (await second.post())[0] == 503
    assert "[api] workers = 1" in caplog.text
    assert "airbyte-events serve" in caplog.text


async def test_the_token_is_in_no_log(
    workers: Workers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    # The simulator's server has silenced it in this process.
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)
    async with workers.start() as worker:
        await worker.post()
        await worker.post(b"not JSON")
    assert "/webhooks/HIDDEN" in caplog.text
    assert WEBHOOK_TOKEN not in caplog.text


async def test_wrong_settings_cost_the_listener_not_the_server(workers: Workers) -> None:
    def load() -> Settings:
        raise SettingsError("AIRBYTE_EVENTS_AIRBYTE_URL: not set")

    async with workers.start(load=load) as worker:
        assert (await worker.health())["role"] == "failed"
        assert (await worker.post())[0] == 503


async def test_a_store_in_memory_is_refused(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    memory = workers.settings.model_copy(update={"store": store_location("memory:")})
    async with workers.start(load=lambda: memory) as worker:
        assert (await worker.health())["role"] == "failed"
    assert "AIRBYTE_EVENTS_STORE=memory" in caplog.text


async def test_it_wants_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRBYTE_EVENTS_AIRBYTE_URL", "http://airbyte:8000")
    with pytest.raises(SettingsError, match="AIRBYTE_EVENTS_API_TOKENS: not set"):
        load_settings()


SERVER = """
    import uvicorn
    from airflow.api_fastapi.app import lifespan
    from fastapi import FastAPI
    from airbyte_events.web.server import bind, url_of
    from airbyte_events_provider.plugins.mounted import MountedListener
    app = FastAPI(lifespan=lifespan)
    app.mount("/airbyte-events", MountedListener())
    bound = bind("127.0.0.1", 0)
    print("at", url_of(bound), flush=True)
    uvicorn.Server(uvicorn.Config(app, http="h11", ws="none", log_config=None)).run([bound])
"""


async def test_an_open_stream_does_not_hold_up_the_servers_end(stage: AirflowStage, tmp_path: Path) -> None:
    env = {
        **os.environ,
        "AIRBYTE_EVENTS_AIRBYTE_URL": stage.sim.url,
        "AIRBYTE_EVENTS_CLIENT_ID": "client",
        "AIRBYTE_EVENTS_CLIENT_SECRET": CLIENT_SECRET,
        "AIRBYTE_EVENTS_API_TOKENS": API_TOKEN,
        "AIRBYTE_EVENTS_WEBHOOK_TOKENS": WEBHOOK_TOKEN,
        "AIRBYTE_EVENTS_STORE": f"sqlite:///{tmp_path}/events.db",
    }
    command = [sys.executable, "-c", textwrap.dedent(SERVER)]
    process = await anyio.open_process(command, env=env, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said = b""
    while not re.search(rb"^at .*\n", said, re.MULTILINE):
        said += await process.stdout.receive()
    url = re.findall(rb"^at (.*)\n", said, re.MULTILINE)[0].decode()
    headers = bearer(API_TOKEN) | {"Accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(headers=headers) as http,
        http.stream("GET", f"{url}/airbyte-events/v1/events") as stream,
    ):
        lines = stream.aiter_lines()
        await anext(lines)
        process.send_signal(signal.SIGTERM)
        with anyio.fail_after(30):
            rest = [line async for line in lines]
            await process.wait()
    assert "event: goaway" in rest
    said += b"".join([chunk async for chunk in process.stdout])
    assert b"Traceback" not in said, said.decode()
    assert process.returncode == -signal.SIGTERM  # as uvicorn ends
    await process.aclose()

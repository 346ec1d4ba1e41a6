"""Strangers, and readers that do not read: whoever behaves well is served meanwhile, and memory stays bounded."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.events import Cursor, JobError, JobEvent, JobRef, JobStatus, Origin
from airbyte_events.simulator import Simulator
from airbyte_events.store.registry import store_location
from soak.crowd import HEADERS
from soak.hogs import Hogs
from soak.listening import API_TOKEN, Listener
from soak.streams import Streams
from support.servers import free_port

pytestmark = pytest.mark.anyio

FAILED = JobStatus.FAILED
OPENAPI = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"


STREAM = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {API_TOKEN}\r\n\r\n"


@dataclass
class Served:
    """How webhooks and health checks were answered, each over a connection of its own."""

    statuses: dict[str, Counter[int | str]] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __str__(self) -> str:
        return "; ".join(
            f"{what} {dict(statuses)}, {self.slowest[what]:.2f} s at most" for what, statuses in self.statuses.items()
        )

    async def ask(self, listener: Listener, webhooks: str) -> None:
        """One webhook and one health check."""
        body = json.dumps({"text": f"Hello {next(self._numbers)}"}).encode()
        await self._one("webhooks", "POST", webhooks, body)
        await self._one("health", "GET", f"{listener.url}/healthz", b"")

    async def _one(self, what: str, method: str, url: str, body: bytes) -> None:
        began = time.perf_counter()
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=20) as http:
            try:
                status: int | str = (await http.request(method, url, content=body)).status_code
            except httpx.HTTPError as exc:
                status = type(exc).__name__
        self.statuses.setdefault(what, Counter())[status] += 1
        self.slowest[what] = max(self.slowest.get(what, 0), time.perf_counter() - began)

    def refused(self) -> int:
        return sum(statuses.total() - statuses[200] for statuses in self.statuses.values())


@pytest.mark.parametrize("apart", [False, True], ids=["one port", "receiver apart"])
async def test_readers_that_never_read_lock_nobody_out(
    apart: bool, airbyte: Simulator, tmp_path: Path, soak: bool, report: Callable[..., None]
) -> None:
    """More connections than there are, each with requests for large answers that it does not read."""
    count, seconds = (3_200, 8.0) if soak else (3_200, 4.0)
    ports = {"WEBHOOK_PORT": str(free_port())} if apart else {}
    served = Served()
    async with Listener(tmp_path, airbyte.url, port=None, **ports) as listener:
        listener.start()
        await listener.ready()
        port = int(ports.get("WEBHOOK_PORT", listener.port))
        webhooks = listener.webhooks.replace(f":{listener.port}/", f":{port}/")
        before = listener.resident
        async with Hogs(listener.port, count, 40 * OPENAPI) as hogs:
            until = time.monotonic() + seconds
            most = 0
            while time.monotonic() < until:
                await served.ask(listener, webhooks)
                await hogs.hold()
                most = max(most, listener.resident)
            await served.ask(listener, webhooks)
        memory = f"memory {before / 2**20:.0f} to {most / 2**20:.0f} MiB"
        where = "receiver apart" if apart else "one port"
        more = f"{count:,} connections that read nothing, {hogs.ended:,} ended; {served}; {memory}"
        report(f"unread, {where}", rounds=1, more=more)
        assert not served.refused(), str(served)
        assert max(served.slowest.values()) < 5, str(served)
        assert most < 400 * 2**20, memory


@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
async def test_whoever_reads_the_metrics_holds_up_no_webhook(
    kind: str, tmp_path: Path, soak: bool, report: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    """Over and over, and all other pages that anybody may ask for, while many jobs are watched of an Airbyte that gives
    no answer."""
    clients, watched, seconds = (32, 50_000, 6.0) if soak else (32, 5_000, 2.0)
    settings = {"STORE": request.getfixturevalue("postgres").url()} if kind == "PostgreSQL" else {}
    served = Served()
    answers: Counter[str] = Counter()
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with Listener(tmp_path, nowhere, port=None, **settings) as listener:
        async with store_location(listener.store).store() as store:
            for start in range(1, watched, 10_000):
                await store.watch([JobRef("default", start + number) for number in range(min(10_000, watched))], 3600)
        listener.start()
        await listener.ready()

        async def read(number: int) -> None:
            pages = ("/metrics", "/metrics", "/metrics", "/openapi.json", "/readyz", "/", "/static/main.js")
            async with httpx.AsyncClient(base_url=listener.url, trust_env=False, verify=False, timeout=60) as http:
                while True:
                    path = pages[number % len(pages)]
                    answers[f"{path} {(await http.get(path)).status_code}"] += 1

        async with anyio.create_task_group() as tasks:
            for number in range(clients):
                tasks.start_soon(read, number)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await served.ask(listener, listener.webhooks)
            tasks.cancel_scope.cancel()
    told = ", ".join(f"{count:,} × {what}" for what, count in sorted(answers.items()))
    report(
        f"pages for anybody, {kind}", rounds=1, more=f"{clients} clients, {watched:,} jobs watched: {told}; {served}"
    )
    assert not served.refused(), str(served)
    assert all(what.endswith(" 200") for what in answers), told
    assert max(served.slowest.values()) < 5, str(served)


async def test_i6_readers_that_resume_and_do_not_read_take_little_memory(
    airbyte: Simulator, tmp_path: Path, soak: bool, report: Callable[..., None]
) -> None:
    """Streams from the first of many large events on. Those that read in the end see all of them."""
    count, events = (300, 600) if soak else (60, 300)
    error = JobError(message="x" * 50_000)
    now = utcnow()
    served = Served()
    async with Listener(tmp_path, airbyte.url) as listener:
        async with store_location(listener.store).store() as store:
            for start in range(0, events, 100):
                refs = [JobRef("earlier", 1 + start + number) for number in range(100)]
                await store.append(
                    [JobEvent(ref=ref, status=FAILED, observed_at=now, origin=Origin.POLL, error=error) for ref in refs]
                )
            first = Cursor(store.epoch, 0)
        listener.start()
        await listener.ready()
        before, system = listener.resident, sent_unread()
        most = 0
        async with Streams(listener.port, first, count, stalled=True) as stalled:
            for _ in range(30):
                await served.ask(listener, listener.webhooks)
                most = max(most, listener.resident)
                await anyio.sleep(0.1)
            system = sent_unread() - system
            reading = stalled.streams[:3]
            for stream in reading:
                stream.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
                stream.transport.resume_reading()
            with anyio.fail_after(60):
                while not all(stream.has(events) for stream in reading):
                    most = max(most, listener.resident)
                    await anyio.sleep(0.1)
            seen = [stream.seen for stream in reading]
        more = (
            f"{count} streams that do not read {events:,} events of 50 kB; memory {before / 2**20:.0f} to"
            f" {most / 2**20:.0f} MiB, and {system / 2**20:.0f} MiB in the system; {served}"
        )
        report("large events, unread", rounds=1, events=events, seen=sum(map(len, seen)), more=more)
        assert seen == [list(range(1, events + 1))] * len(reading)
        assert not served.refused(), str(served)
        assert most < 300 * 2**20, more
        assert most + system < 400 * 2**20, more


def sent_unread() -> int:
    """Bytes that the system keeps for all TCP connections, of this test's own alone where nothing else runs."""
    told = Path("/proc/net/sockstat")
    pages = re.search(r"^TCP:.* mem (\d+)", told.read_text(), re.MULTILINE) if told.exists() else None
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


@pytest.mark.parametrize("files", [256, 1024])
async def test_with_few_files_streams_are_refused_and_webhooks_are_not(
    files: int, airbyte: Simulator, tmp_path: Path, report: Callable[..., None]
) -> None:
    """More streams than it may have files open, all of them read."""
    served = Served()
    answers: Counter[bytes] = Counter()
    async with Listener(tmp_path, airbyte.url) as listener:
        listener.start(files=files)
        await listener.ready()
        async with AsyncExitStack() as stack:
            for _ in range(files + 100):
                stream = await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", listener.port))
                await stream.send(STREAM.encode())
                with anyio.fail_after(20):
                    head = await stream.receive()
                answers[head[9:12]] += 1
                assert head[9:12] == b"200" or b"\r\nretry-after: 5\r\n" in head.lower(), head
            for _ in range(20):
                await served.ask(listener, listener.webhooks)
            async with httpx.AsyncClient(trust_env=False, headers=HEADERS) as http:
                assert (await http.get(f"{listener.url}/v1/jobs")).status_code == 200
    told = ", ".join(f"{count} × {status.decode()}" for status, count in sorted(answers.items()))
    report(f"{files} files", rounds=1, more=f"{files + 100} streams: {told}; {served}")
    assert answers[b"200"] >= files // 8
    assert answers.keys() == {b"200", b"503"}
    assert not served.refused(), str(served)

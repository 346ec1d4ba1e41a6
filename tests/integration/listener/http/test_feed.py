"""The feed over a socket: streams and pages."""

from __future__ import annotations

import json
import logging
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import httpx
import pytest

from airbyte_events.bus.bus import BUFFER, EventBus
from airbyte_events.errors import StoreError
from airbyte_events.events import JobError, JobEvent, JobStatus
from airbyte_events.feed import sse
from airbyte_events.listener.http.api import API
from airbyte_events.listener.http.app import create_app
from airbyte_events.listener.http.feed import Feed
from airbyte_events.listener.http.params import PAGE_BYTES
from airbyte_events.store.base import EventStore
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.sqlite.store import SQLiteStore
from airbyte_events.web.auth import Tokens, digest_of, new_token
from airbyte_events.web.h11_protocol import ConnectionLimits
from airbyte_events.web.server import serving
from support.listener import bearer
from support.stored import NOON, CountingStore, event, flips
from support.waiting import in_background, until

pytestmark = pytest.mark.anyio

SOURCE = "https://airbyte.example.com"
STREAM = {"Accept": "text/event-stream"}


@dataclass
class Stream:
    """What a client of the stream is told."""

    response: httpx.Response
    frames: AsyncIterator[sse.Frame]

    async def next(self) -> sse.Frame:
        with anyio.fail_after(30):
            return await anext(self.frames)

    async def named(self, name: str) -> sse.Frame:
        frame = await self.next()
        assert frame.event == name, frame
        return frame

    async def job(self) -> dict[str, Any]:
        frame = await self.named("job")
        envelope: dict[str, Any] = json.loads(frame.data)
        assert frame.id == envelope["id"]
        return envelope

    async def sequences(self, last: int) -> list[int]:
        """Of the jobs up to that one; bookmarks in between are passed over."""
        found = [0]
        with anyio.fail_after(30):
            while found[-1] < last:
                frame = await self.next()
                assert frame.event in ("job", "bookmark")
                assert frame.id is not None
                if frame.event == "job":
                    found.append(int(frame.id.partition("-")[2]))
        return found[1:]


async def decoded(response: httpx.Response) -> AsyncIterator[sse.Frame]:
    decoder = sse.Decoder()
    async for chunk in response.aiter_raw():
        for frame in decoder.feed(chunk):
            yield frame


@dataclass
class ServedFeed:
    """A served feed."""

    store: EventStore
    bus: EventBus
    http: httpx.AsyncClient
    url: str
    token: str
    tokens: Tokens

    def cursor(self, sequence: int) -> str:
        return f"{self.store.epoch}-{sequence}"

    async def append(self, *events: JobEvent) -> None:
        await self.store.append(events)
        with anyio.fail_after(30):
            while self.bus.position < await self.store.head():
                await anyio.lowlevel.checkpoint()

    @asynccontextmanager
    async def stream(self, headers: dict[str, str] | None = None, **params: Any) -> AsyncIterator[Stream]:
        async with self.http.stream("GET", "/v1/events", headers=STREAM | (headers or {}), params=params) as response:
            assert response.status_code == 200
            frames = decoded(response)
            try:
                yield Stream(response, frames)
            finally:
                await frames.aclose()  # type: ignore[attr-defined]

    async def page(self, **params: Any) -> httpx.Response:
        return await self.http.get("/v1/events", params=params)

    async def subscriptions(self, number: int) -> None:
        """Return when there are so many."""
        await until(lambda: self.bus.subscriptions == number)


@asynccontextmanager
async def feeding(
    store: EventStore, limits: ConnectionLimits | None = None, **options: Any
) -> AsyncIterator[ServedFeed]:
    token = new_token()
    async with store, EventBus(store) as bus:
        feed = Feed(bus, store, {"default": SOURCE}, **options)
        tokens = Tokens([digest_of(token)])
        app = create_app(API(feed, {}), None, None, None, tokens, dict)
        headers = bearer(token)
        async with (
            serving(app, timeout_graceful_shutdown=2, limits=limits) as url,
            httpx.AsyncClient(
                base_url=url, headers=headers, trust_env=False, timeout=10, limits=httpx.Limits(max_connections=None)
            ) as http,
        ):
            yield ServedFeed(store, bus, http, url, token, tokens)
            bus.close()


@pytest.fixture
async def served(caplog: pytest.LogCaptureFixture) -> AsyncIterator[ServedFeed]:
    caplog.set_level(logging.INFO, "uvicorn.error")
    async with feeding(MemoryStore()) as served:
        yield served
    assert not [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING]


class TestStream:
    async def test_begins_with_hello_and_goes_on_with_jobs(self, served: ServedFeed) -> None:
        await served.append(event(1))
        async with served.stream() as stream:
            assert stream.response.headers["content-type"].startswith("text/event-stream")
            assert stream.response.headers["cache-control"] == "no-store"
            hello = await stream.named("hello")
            assert hello.id == served.cursor(1)
            assert json.loads(hello.data) == {"epoch": served.store.epoch, "head": served.cursor(1), "heartbeat": 15.0}
            await served.append(event(1, JobStatus.SUCCEEDED, finished_at=NOON, records=5))
            told = await stream.job()
        (stored,) = (await served.store.read(1)).events
        assert told == stored.envelope(SOURCE)
        assert (told["id"], told["type"], told["source"]) == (served.cursor(2), "io.airbyte.job.succeeded", SOURCE)

    async def test_i5_resumes_behind_a_cursor(self, served: ServedFeed) -> None:
        await served.append(*flips(10))
        seen = {"Last-Event-ID": served.cursor(3)}
        ways = [(seen, {}), ({}, {"after": served.cursor(3)}), (seen, {"after": served.cursor(9)})]
        for number, (headers, params) in enumerate(ways, 11):
            async with served.stream(headers, **params) as stream:
                assert (await stream.named("hello")).id == served.cursor(3)
                await served.append(event(number))
                assert await stream.sequences(number) == list(range(4, number + 1))

    async def test_i5_from_the_beginning(self, served: ServedFeed) -> None:
        await served.append(*flips(3))
        async with served.stream(after=served.cursor(0)) as stream:
            await stream.named("hello")
            assert await stream.sequences(3) == [1, 2, 3]

    async def test_resets_who_comes_with_a_cursor_that_leads_nowhere(self, served: ServedFeed) -> None:
        await served.append(*flips(3))
        for head, cursor in enumerate(["00ff-1", served.cursor(10), served.cursor(10**18 - 1)], 3):
            async with served.stream(after=cursor) as stream:
                await stream.named("hello")
                reset = await stream.named("reset")
                assert reset.id == served.cursor(head)
                assert json.loads(reset.data)["reason"]
                await served.append(event(head))
                assert (await stream.job())["id"] == served.cursor(head + 1)

    async def test_resets_who_comes_too_late(self) -> None:
        async with feeding(MemoryStore(capacity=10)) as served:
            for _ in range(3):
                await served.append(*flips(10))
            async with served.stream(after=served.cursor(5)) as stream:
                await stream.named("hello")
                assert (await stream.named("reset")).id == served.cursor(30)
            assert (await served.page(after=served.cursor(5))).status_code == 410

    async def test_bookmarks_move_the_cursor_on(self) -> None:
        async with feeding(MemoryStore(), heartbeat=0.05) as served, served.stream(job_id=9) as stream:
            assert json.loads((await stream.named("hello")).data)["heartbeat"] == 0.05
            assert (await stream.named("bookmark")).id == served.cursor(0)
            await served.append(*flips(5))
            frame = await stream.named("bookmark")
            while frame.id != served.cursor(5):
                frame = await stream.named("bookmark")

    async def test_filters(self, served: ServedFeed) -> None:
        await served.append(
            event(1),
            event(2),
            event(3, connection_id="c"),
            event(2, JobStatus.SUCCEEDED),
            event(3, JobStatus.FAILED, instance="other"),
        )
        wanted: list[tuple[dict[str, Any], list[int]]] = [
            ({"job_id": "2"}, [2, 4]),
            ({"job_id": ["2", "3"]}, [2, 3, 4, 5]),
            ({"job_id": "2,3", "instance": "other"}, [5]),
            ({"connection_id": "c"}, [3]),
            ({"status": "succeeded,failed"}, [4, 5]),
            ({"terminal": "true"}, [4, 5]),
            ({"terminal": "false", "instance": "default"}, [1, 2, 3]),
            ({"instance": "default", "job_id": "1"}, [1]),
        ]
        for params, found in wanted:
            async with served.stream(after=served.cursor(0), **params) as stream:
                await stream.named("hello")
                assert await stream.sequences(found[-1]) == found
            page = (await served.page(after=served.cursor(0), **params)).json()
            assert [int(each["sequence"]) for each in page["events"]] == found
            assert page["cursor"] == served.cursor(5)

    async def test_says_goaway_on_drain_after_all_it_has(self, served: ServedFeed) -> None:
        async with served.stream() as one, served.stream() as other:
            for stream in (one, other):
                await stream.named("hello")
            await served.append(event(1))
            served.bus.close()
            for stream in (one, other):
                await stream.job()
                assert json.loads((await stream.named("goaway")).data) == {"reason": "drain"}
                with pytest.raises(StopAsyncIteration):
                    await stream.next()
        async with served.stream(after=served.cursor(0)) as late:
            await late.named("hello")
            await late.job()
            await late.named("goaway")

    async def test_says_goaway_when_its_time_is_up(self) -> None:
        async with feeding(MemoryStore(), max_age=0.1) as served, served.stream() as stream:
            await stream.named("hello")
            frame = await stream.next()
            while frame.event == "bookmark":
                frame = await stream.next()
            assert (frame.event, json.loads(frame.data)) == ("goaway", {"reason": "age"})

    async def test_says_goaway_when_its_token_is_taken_away(self) -> None:
        """Within a heartbeat, and before it tells of anything more."""
        async with feeding(MemoryStore(), heartbeat=0.05) as served:
            async with served.stream() as stream:
                await stream.named("hello")
                served.tokens.replace([digest_of(served.token), digest_of("another")])
                await served.append(event(1))
                while (frame := await stream.next()).event == "bookmark":
                    pass
                assert frame.event == "job"
                served.tokens.replace([digest_of("another")])
                while (frame := await stream.next()).event == "bookmark":
                    pass
                assert (frame.event, json.loads(frame.data)) == ("goaway", {"reason": "token"})
            assert (await served.page()).status_code == 401

    async def test_says_goaway_when_the_log_can_not_be_read(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with feeding(SQLiteStore(tmp_path / "events.db")) as served:
            await served.append(*flips(3))
            with sqlite3.connect(tmp_path / "events.db") as other:
                other.execute("ALTER TABLE events RENAME TO gone")
            other.close()
            async with served.stream(after=served.cursor(1)) as stream:
                await stream.named("hello")
                assert json.loads((await stream.named("goaway")).data) == {"reason": "store"}
            answer = await served.page(after=served.cursor(1))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert not [record for record in caplog.records if record.exc_info]


class TestManyClients:
    async def test_i6_a_slow_reader_blocks_nobody_and_misses_nothing(self, served: ServedFeed) -> None:
        padding = "x" * 2_000
        total = 5 * BUFFER
        async with served.stream() as slow, served.stream() as fast:
            for stream in (slow, fast):
                await stream.named("hello")
            # Far more than sockets and buffers take: the server can't get rid of it while nobody reads.
            for first in range(0, total, 500):
                await served.append(*flips(500, names={"connection": padding}))
                assert await fast.sequences(first + 500) == list(range(first + 1, first + 501))
            assert await slow.sequences(total) == list(range(1, total + 1))

    async def test_i6_one_that_does_not_read_stays_where_it_is_in_the_log(self) -> None:
        store = CountingStore()
        async with feeding(store, limits=(limits := ConnectionLimits())) as served:
            for _ in range(20):
                await served.append(*flips(20, error=JobError(message="x" * 50_000)))
            store.told = 0
            at = urlsplit(served.url)
            with socket.socket() as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                raw.connect((at.hostname, at.port))
                head = f"GET /v1/events?after={served.cursor(0)} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
                raw.sendall(f"{head}Authorization: Bearer {served.token}\r\n\r\n".encode())
                await until(lambda: limits.stalled)
                for _ in range(50):
                    await served.http.get("/healthz")
                # What fits into the buffers on the way, and one batch.
                assert store.told <= 20
                assert limits.unread < 250_000
            await served.subscriptions(0)
            async with served.stream(after=served.cursor(0)) as stream:
                await stream.named("hello")
                assert await stream.sequences(400) == list(range(1, 401))

    async def test_i6_a_page_has_so_many_bytes_and_the_next_goes_on(self) -> None:
        async with feeding(MemoryStore()) as served:
            for _ in range(4):
                await served.append(*flips(20, error=JobError(message="x" * 50_000)))
            seen: list[int] = []
            cursor = served.cursor(0)
            while len(seen) < 80:
                page = await served.page(after=cursor, limit=1000, wait=1)
                assert len(page.content) < PAGE_BYTES + 100_000
                cursor = page.json()["cursor"]
                seen += [int(each["sequence"]) for each in page.json()["events"]]
                assert cursor == served.cursor(seen[-1])
            assert seen == list(range(1, 81))

    async def test_those_that_vanish_leave_no_subscription(self, served: ServedFeed) -> None:
        await served.append(*flips(5))
        async with served.stream(), served.stream(after=served.cursor(0)), served.stream(instance="default", job_id=1):
            await served.subscriptions(3)
        await served.subscriptions(0)
        async with in_background(lambda: served.page(wait=60)):
            await served.subscriptions(1)
        await served.subscriptions(0)

    async def test_a_hundred_see_the_same(self, served: ServedFeed) -> None:
        seen: list[list[int]] = []

        async def follow() -> None:
            async with served.stream() as stream:
                await stream.named("hello")
                seen.append(await stream.sequences(100))

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(follow)
            await served.subscriptions(100)
            for _ in range(10):
                await served.append(*flips(10))
        assert seen == [list(range(1, 101))] * 100


class TestLongPoll:
    async def test_pages_through_what_there_is(self, served: ServedFeed) -> None:
        await served.append(*flips(5))
        assert (await served.page()).json() == {"events": [], "cursor": served.cursor(5)}
        after, seen = served.cursor(0), []
        for _ in range(3):
            page = (await served.page(after=after, limit=2)).json()
            after = page["cursor"]
            seen += [each["id"] for each in page["events"]]
        assert seen == [served.cursor(number) for number in range(1, 6)]
        assert (await served.page(after=after, wait=0)).json() == {"events": [], "cursor": served.cursor(5)}

    async def test_waits_for_the_next(self, served: ServedFeed) -> None:
        answers: list[dict[str, Any]] = []

        async def poll(**params: Any) -> None:
            answers.append((await served.page(wait=30, **params)).json())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poll)
            tasks.start_soon(lambda: poll(after=served.cursor(0), terminal="true"))
            await served.subscriptions(2)
            await served.append(event(1))
            while not answers:
                await anyio.lowlevel.checkpoint()
            await served.append(event(1, JobStatus.SUCCEEDED))
        assert [answer["cursor"] for answer in answers] == [served.cursor(1), served.cursor(2)]
        assert [[each["data"]["status"] for each in answer["events"]] for answer in answers] == [
            ["running"],
            ["succeeded"],
        ]

    async def test_answers_empty_handed_with_a_cursor_that_moved_on(self, served: ServedFeed) -> None:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(served.append, event(1))
                answer = await served.page(wait=0.2, job_id=9, after=served.cursor(0))
        assert answer.json() == {"events": [], "cursor": served.cursor(1)}

    async def test_is_answered_on_drain(self, served: ServedFeed) -> None:
        answers: list[httpx.Response] = []

        async def poll() -> None:
            answers.append(await served.page(wait=60))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(poll)
                await served.subscriptions(1)
                served.bus.close()
        assert answers[0].json() == {"events": [], "cursor": served.cursor(0)}

    async def test_410_where_a_stream_would_be_reset(self, served: ServedFeed) -> None:
        await served.append(*flips(3))
        for wait, after in product((0, 5), ("00ff-1", served.cursor(4))):
            answer = await served.page(after=after, wait=wait)
            assert answer.status_code == 410
            assert answer.json()["error"] == "reset"
            assert answer.json()["cursor"] == served.cursor(3)

    async def test_head_has_an_end(self, served: ServedFeed) -> None:
        with anyio.fail_after(30):
            answer = await served.http.head("/v1/events", headers=STREAM)
        assert (answer.status_code, answer.content) == (200, b"")


class TestRefusals:
    async def test_400_with_a_sentence(self, served: ServedFeed) -> None:
        wrong = {
            "after": ["x", "5", "ab-", "AB-1", f"ab-{10**20}", "ab-1 "],
            "terminal": ["yes", "True", "1", ""],
            "status": ["done", "succeeded,done", "SUCCEEDED"],
            "job_id": ["x", "1,x", "-1", "0", "1.5", " 1", "1_0", "\u0663", str(2**63), "9" * 5_000],
            "wait": ["x", "-1", "61", "nan", "inf", ""],
            "limit": ["0", "1001", "x", "nan", "1.5", "1e2", " 1"],
            # An empty one would let everything pass.
            "instance": ["", "a,", "a\0"],
            "connection_id": ["", "\0"],
            "jobs_id": ["1"],
        }
        for name, values in wrong.items():
            for value in values:
                answer = await served.page(**{name: value})
                assert answer.status_code == 400, (name, value)
                assert answer.json()["error"].startswith(f"{name}: "), (name, value)
                if name not in ("wait", "limit"):
                    answer = await served.http.get("/v1/events", params={name: value}, headers=STREAM)
                    assert answer.status_code == 400
        for twice in ("limit", "wait", "terminal", "after"):
            answer = await served.http.get(f"/v1/events?{twice}=1&{twice}=2")
            assert answer.json()["error"] == f"{twice}: give it once"
        answer = await served.http.get("/v1/events", headers=STREAM | {"Last-Event-ID": "nonsense"})
        assert answer.status_code == 400

    async def test_the_largest_values_are_taken(self, served: ServedFeed) -> None:
        answer = await served.page(job_id=str(2**63 - 1), limit=1000, instance="☃", connection_id="'; --", wait=0)
        assert answer.json()["events"] == []

    async def test_401_without_a_valid_token(self, served: ServedFeed) -> None:
        token = served.token
        wrong = ["", "Bearer", f"Basic {token}", token, f"Bearer {token}x", f"Bearer {token[:-1]}", "Bearer é"]
        async with httpx.AsyncClient(base_url=served.url, trust_env=False) as http:
            for value in wrong:
                headers: dict[str, Any] = STREAM | ({"Authorization": value.encode()} if value else {})
                for path in ("/v1/events", f"/v1/events?token={token}", "/v1/jobs", "/v1/nowhere"):
                    answer = await http.get(path, headers=headers)
                    assert answer.status_code == 401, value
                    assert answer.headers["www-authenticate"] == "Bearer"
                    assert token not in answer.text
            assert (await http.post("/v1/watches", json={})).status_code == 401
            for scheme in ("bearer", "BEARER"):
                answer = await http.get("/v1/events", headers={"Authorization": f"{scheme}  {token}"})
                assert answer.status_code == 200


class TestLogThatLostItsLastEvents:
    """A SQLite file that was put back to an earlier state under a running listener."""

    async def test_i5_every_stream_and_page_is_told(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        store = SQLiteStore(path)
        async with feeding(store, heartbeat=0.2) as served:
            await served.append(*flips(3))
            with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
                live.backup(backup)
                await served.append(event(7, JobStatus.SUCCEEDED), event(8, JobStatus.SUCCEEDED))
                before = served.cursor(5)
                async with served.stream(after=before) as everything, served.stream(after=before, job_id=9) as one:
                    for stream in (everything, one):
                        await stream.named("hello")
                    await served.subscriptions(2)
                    backup.backup(live)
                    # As many as before and more, under the same numbers.
                    with suppress(StoreError):
                        await store.append([event(9, JobStatus.SUCCEEDED)])
                    await store.append([event(job, JobStatus.SUCCEEDED) for job in (9, 10, 11)])
                    for stream in (everything, one):
                        frame = await stream.next()
                        while frame.event == "bookmark":
                            frame = await stream.next()
                        assert frame.event == "reset"
                        assert str(frame.id).partition("-")[0] == store.epoch != before.partition("-")[0]
                assert (await served.page(after=before)).status_code == 410
                assert (await served.page(after=served.cursor(3))).json()["cursor"] == served.cursor(6)

    async def test_i5_a_cursor_is_never_of_one_log_with_the_place_of_another(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        store = SQLiteStore(path)
        async with feeding(store, heartbeat=0.05) as served:
            await served.append(*flips(9))
            epoch = store.epoch
            async with served.stream() as stream:
                await stream.named("hello")
                with closing(sqlite3.connect(path)) as live, live:
                    live.execute("DELETE FROM events WHERE sequence > 2")
                    live.execute("UPDATE sqlite_sequence SET seq = 2 WHERE name = 'events'")
                await store.check()
                frame = await stream.next()
                while frame.event == "bookmark":
                    assert frame.id == f"{epoch}-9"
                    frame = await stream.next()
                assert (frame.event, frame.id) == ("reset", f"{store.epoch}-2")
                assert (await stream.named("bookmark")).id == f"{store.epoch}-2"
                assert store.epoch != epoch

    async def test_an_event_of_the_new_log_is_not_sent_as_that_of_the_old(self, tmp_path: Path) -> None:
        """What was sent under a number is kept for other streams."""
        path = tmp_path / "events.db"
        store = SQLiteStore(path)
        async with feeding(store) as served, served.stream() as stream:
            await stream.named("hello")
            await served.append(event(1))
            assert (await stream.job())["subject"] == "jobs/1"
            with closing(sqlite3.connect(path)) as live, live:
                live.execute("DELETE FROM events")
                live.execute("UPDATE sqlite_sequence SET seq = 0 WHERE name = 'events'")
            await store.check()
            await stream.named("reset")
            await served.append(event(2))
            told = await stream.job()
            assert (told["subject"], told["id"]) == ("jobs/2", served.cursor(1))

"""Histories: the same whatever happens while they are read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from airbyte_events.bus.bus import BUFFER
from airbyte_events.errors import StoreError
from airbyte_events.events import EVERYTHING, Cursor, EventFilter, JobEvent
from airbyte_events.events.progress import USUAL_OF
from airbyte_events.listener.histories import MOST_CONNECTIONS, MOST_JOBS, Histories
from airbyte_events.store.base import UNBOUNDED
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import LogPage
from support.events import CONNECTION, event_of
from support.listener import API_TOKEN, bearer, instance_of, serve_listener, settings_of
from support.waiting import until

pytestmark = pytest.mark.anyio


class Busy(MemoryStore):
    """A store in which something happens before each page of jobs is read."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[Callable[[], Awaitable[None]]] = []

    async def jobs(
        self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING
    ) -> list[JobEvent]:
        if self.before:
            await self.before.pop(0)()
        return await super().jobs(limit=limit, before=before, wanted=wanted)


async def put(store: MemoryStore, *statuses: str, job_id: int = 7, **fields: Any) -> list[JobEvent]:
    appended = await store.append([replace(event_of(job_id, status), **fields) for status in statuses])
    return list(appended.events)


@pytest.mark.parametrize("published", ["at once", "after the page was read", "late"])
async def test_a_job_that_completes_meanwhile_is_neither_active_nor_counted_twice(published: str) -> None:
    store = Busy()
    histories = Histories(store)
    unpublished: list[JobEvent] = []

    def publish() -> None:
        for event in unpublished:
            histories.add(event)
        unpublished.clear()

    async def complete() -> None:
        unpublished.extend(await put(store, "running", "failed"))
        if published == "at once":
            publish()

    async def nothing() -> None:
        if published == "after the page was read":
            publish()

    store.before = [complete, nothing]
    await histories.load()
    publish()
    history = histories.of("default", CONNECTION)
    assert history is not None
    assert histories.active == {}
    assert (history.completed, history.failures) == (1, 1)
    for event in await put(store, "running", "failed", job_id=8):
        histories.add(event)
    assert histories.active == {}
    assert (history.completed, history.failures) == (2, 2)


async def test_who_reads_them_at_the_same_time_counts_nothing_twice() -> None:
    store = Busy()
    await put(store, "running", "failed")
    store.before = [anyio.lowlevel.checkpoint, anyio.lowlevel.checkpoint]
    histories = Histories(store)
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(histories.load)
    history = histories.of("default", CONNECTION)
    assert history is not None
    assert history.completed == 1


async def test_the_connections_that_changed_last_are_kept() -> None:
    store = MemoryStore(capacity=2 * MOST_CONNECTIONS)
    names = [f"{number:08}-0000-4000-8000-000000000000" for number in range(MOST_CONNECTIONS + 2)]
    await store.append([event_of(number + 1, connection_id=name) for number, name in enumerate(names)])
    histories = Histories(store)
    await histories.load()
    assert len(histories.connections) == MOST_CONNECTIONS
    assert histories.of("default", names[-1]) is not None
    assert histories.of("default", names[0]) is None


class Large(MemoryStore):
    """A store with a hundred thousand failed jobs of one connection."""

    read_jobs = 0

    async def jobs(
        self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING
    ) -> list[JobEvent]:
        if wanted.terminal is False:
            return []
        newest = 100_000 if before is None else before - 1
        found = range(newest, max(newest - limit, 0), -1)
        self.read_jobs += len(found)
        return [replace(event_of(number, "failed"), cursor=Cursor("ab", number)) for number in found]


async def test_of_a_hundred_thousand_jobs_the_newest_are_read() -> None:
    store = Large()
    histories = Histories(store)
    await histories.load()
    history = histories.of("default", CONNECTION)
    assert history is not None
    assert (store.read_jobs, history.completed) == (MOST_JOBS, MOST_JOBS)
    assert history.last.ref.job_id == 100_000


async def test_what_is_usual_of_a_connection_has_a_bound() -> None:
    histories = Histories(MemoryStore())
    await histories.load()
    for number in range(1, 10 * USUAL_OF):
        event = replace(event_of(number), cursor=Cursor("ab", number), duration_seconds=float(number))
        histories.add(event)
    history = histories.of("default", CONNECTION)
    assert history is not None
    assert {kind: len(took) for kind, took in history.successes.items()} == {"sync": USUAL_OF}
    usual = histories.usual("default", CONNECTION, "sync")
    assert usual is not None
    assert (usual.duration_seconds or 0) > 9 * USUAL_OF - 1


class Failing(MemoryStore):
    """A store that can't be read as often as :attr:`faults` says, when a subscriber far behind reads the log."""

    faults = 0

    async def read(self, after: int, *, limit: int = 500, size: int = UNBOUNDED, **given: Any) -> LogPage:
        if self.faults and limit < BUFFER:
            self.faults -= 1
            raise StoreError("the connection is closed")
        return await super().read(after, limit=limit, size=size, **given)


class TestListener:
    @pytest.fixture
    def anyio_backend(self) -> str:
        """uvicorn's."""
        return "asyncio"

    async def test_no_event_is_left_out_after_the_store_could_not_be_read(self) -> None:
        store = Failing()
        count = BUFFER + BUFFER // 2
        await store.append([event_of(count + 1)])
        settings = settings_of(instance_of("http://127.0.0.1:9"))
        async with (
            serve_listener(settings, store=store) as served,
            httpx.AsyncClient(trust_env=False, headers=bearer(API_TOKEN)) as http,
        ):
            store.faults = 1
            await store.append([event_of(number + 1) for number in range(count)])

            async def counted() -> float:
                page = (await http.get(f"{served.url}/metrics")).text
                lines = [line for line in page.splitlines() if line.startswith("airbyte_events_job_events_total{")]
                found = sum(float(line.rpartition(" ")[2]) for line in lines)
                return found if found >= count else 0

            assert await until(counted) == count
            assert store.faults == 0

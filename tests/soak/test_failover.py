"""A failover that loses the last events: other events get their numbers, and no reader is left with the old ones."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
import pytest

from airbyte_events.errors import FeedError
from airbyte_events.feed.client import FeedClient
from airbyte_events.simulator.models import Job
from postgres_server import PostgresServer
from soak.crowd import HEADERS, Crowd, until, until_known
from soak.listening import Listener
from soak.scene import Run

pytestmark = pytest.mark.anyio

READERS = 10
JOBS = 5


@dataclass
class Reader:
    """Follows one listener from a cursor on, and reads states when it is told to."""

    feed: FeedClient
    http: httpx.AsyncClient
    url: str
    ends: set[int] = field(default_factory=set)
    resets: int = 0

    async def run(self) -> None:
        cursor = None
        while True:
            with suppress(FeedError):
                async with self.feed.stream(after=cursor, instance="default") as frames:
                    async for frame in frames:
                        cursor = frame.cursor or cursor
                        if frame.event is not None and frame.event.terminal:
                            self.ends.add(frame.event.ref.job_id)
                        elif frame.name == "reset":
                            await self._read_states()
                            self.resets += 1
            await anyio.sleep(0.1)

    async def _read_states(self) -> None:
        params = {"terminal": "true", "limit": "1000"}
        answer = await self.http.get(f"{self.url}/v1/jobs", headers=HEADERS, params=params)
        if answer.status_code == 200:
            self.ends |= {each["job_id"] for each in answer.json()["jobs"]}


@dataclass
class Failover:
    """Two listeners on one server, readers on both."""

    postgres: PostgresServer
    listeners: list[Listener]
    readers: list[Reader]
    crowd: Crowd

    async def lose(self, copy: Path) -> None:
        """Have the server go on with the files of before the last ends, which every reader knows."""
        await self.heard(self.crowd.start_jobs(JOBS))
        await self._serve(self.postgres.stop, lambda: self.postgres.copy(copy), self.postgres.start)
        lost = self.crowd.start_jobs(JOBS)
        await self.heard(lost)
        for reader in self.readers:
            reader.ends -= {job.id for job in lost}
        await self._serve(
            lambda: self.postgres.stop(signal.SIGKILL), lambda: self.postgres.put_back(copy), self.postgres.start
        )
        shutil.rmtree(copy)
        # More than were lost, so that each number comes again.
        await self.heard([*lost, *self.crowd.start_jobs(2 * JOBS)])

    async def heard(self, jobs: Collection[Job]) -> None:
        wanted = {job.id for job in jobs}
        await until(lambda: all(reader.ends >= wanted for reader in self.readers), "readers to hear of every end")

    async def _serve(self, *steps: Callable[[], object]) -> None:
        for step in steps:
            await anyio.to_thread.run_sync(step)
        for listener in self.listeners:
            await listener.ready(supervised=True)


async def test_i5_no_end_is_lost_with_the_last_events(run: Run, postgres: PostgresServer) -> None:
    """The server is killed, and what it goes on with lacks ends that every reader has seen."""
    failovers = run.rounds(10, 1)
    listeners = []
    for name in ("one", "other"):
        (run.folder / name).mkdir()
        listeners.append(Listener(run.folder / name, run.airbyte.url, STORE=postgres.url(), POLL_INTERVAL="1"))
    crowd = Crowd(run.airbyte, [each.url for each in listeners], run.http, run.dice, "")
    run.airbyte.workspace.set_webhook(listeners[0].webhooks)
    readers = [Reader(crowd.feed(number), run.http, listeners[number % 2].url) for number in range(READERS)]
    failover = Failover(postgres, listeners, readers, crowd)
    async with listeners[0], listeners[1], anyio.create_task_group() as tasks:
        for listener in listeners:
            listener.start()
            await listener.ready()
        for reader in readers:
            tasks.start_soon(reader.run)
        for number in range(1, failovers + 1):
            await failover.lose(postgres.folder / "copy")
            await until(lambda number=number: all(each.resets >= number for each in readers), "resets")  # type: ignore[misc]
        for listener in listeners:
            await until_known(run.http, listener.url, crowd.jobs)
        tasks.cancel_scope.cancel()
    run.report(
        "failover that loses the last events",
        rounds=failovers,
        faults=failovers,
        sent=len(crowd.jobs),
        seen=min(len(reader.ends) for reader in readers),
        lost=sum(len({job.id for job in crowd.jobs} - reader.ends) for reader in readers),
        more=f"{READERS} readers, {sum(each.resets for each in readers)} resets",
    )

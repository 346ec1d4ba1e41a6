"""The times that the documentation promises for what happens rarely: a leader that crashes, a feed that is left."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import anyio
import httpx
import pytest

from airbyte_events.errors import StoreError
from airbyte_events.feed.client import FeedClient, FeedFrame
from airbyte_events.hub.hub import AWAY_SECONDS, GRACE_SECONDS
from airbyte_events.hub.listener_link import ListenerLink
from airbyte_events.listener.leader import LeaderElection
from airbyte_events.listener.pipeline import FAILING_SECONDS
from airbyte_events.monitor.poller import Poller
from airbyte_events.store.base import LeaseTable
from airbyte_events.store.records import Lease
from model.virtual.clock import in_virtual_time, play
from support.stored import SharedStore

ROUNDS = 20
"""The waits are random in part."""


class Line:
    """A listener's way to the store. It is cut when the listener crashes."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        if self.cut:
            raise StoreError("the line is cut")
        return getattr(self._store, name)


async def lead(_: Lease) -> None:
    await anyio.sleep_forever()


@pytest.mark.parametrize("leases", [1, 4])
def test_another_listener_acquires_the_leases_of_one_that_crashed_within_15_s(leases: int) -> None:
    async def main() -> None:
        async with SharedStore() as store, anyio.create_task_group() as tasks:
            lines = [Line(store) for _ in range(2)]
            names = [f"sources/{number}" for number in range(leases)]
            first, other = (
                LeaderElection(cast(LeaseTable, line), dict.fromkeys(names, lead), turn=10**9) for line in lines
            )
            tasks.start_soon(first.run)
            await anyio.sleep(10)
            assert len(first.held) == leases
            tasks.start_soon(other.run)
            # Not in step with renewals.
            await anyio.sleep(10 + leases * 0.37)
            assert not other.held
            lines[0].cut = True
            first.stop()
            await anyio.sleep(15)
            assert len(other.held) == leases
            tasks.cancel_scope.cancel()

    for _ in range(ROUNDS):
        play(main)


@dataclass
class Reach:
    """Whether a listener reaches Airbyte: not from a moment on."""

    until: float = math.inf

    @property
    def failing(self) -> bool:
        return anyio.current_time() >= self.until + FAILING_SECONDS

    async def recovered(self) -> bool:
        return False


def test_another_listener_acquires_the_lease_of_one_that_can_not_reach_airbyte_within_half_a_minute() -> None:
    async def main() -> None:
        async with SharedStore() as store, anyio.create_task_group() as tasks:
            reaches = [Reach(), Reach()]
            first, other = (
                LeaderElection(store, {"sources/default": lead}, health={"sources/default": each}) for each in reaches
            )
            tasks.start_soon(first.run)
            await anyio.sleep(10)
            tasks.start_soon(other.run)
            await anyio.sleep(10)
            assert first.held
            reaches[0].until = anyio.current_time()
            await anyio.sleep(30)
            assert (len(first.held), len(other.held)) == (0, 1)
            tasks.cancel_scope.cancel()

    for _ in range(ROUNDS):
        play(main)


@in_virtual_time
async def test_a_feed_that_is_left_each_time_is_followed_again_after_5_minutes_10_20_40_and_each_hour() -> None:
    followed: list[float] = []

    async def frames() -> AsyncIterator[bytes]:
        yield b'event: hello\nid: 5f3a9c1e-1\ndata: {"epoch": "5f3a9c1e"}\n\n'
        await anyio.sleep_forever()

    def respond(_: httpx.Request) -> httpx.Response:
        followed.append(anyio.current_time())
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=frames())

    async def receive(_: FeedFrame) -> None:
        link.leave("it serves another Airbyte")

    class Polling:
        async def run(self) -> None:
            await anyio.sleep_forever()

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as http, anyio.create_task_group() as tasks:
        link = ListenerLink(
            feed=FeedClient(http, "http://listener", "an-api-token"),
            instance="default",
            poller=cast(Poller, Polling()),
            receive=receive,
            on_leave=lambda: None,
            grace=GRACE_SECONDS,
            away=AWAY_SECONDS,
        )
        tasks.start_soon(link.run)
        await anyio.sleep(5 * 3600)
        tasks.cancel_scope.cancel()
    minutes = [round((after - before) / 60) for before, after in itertools.pairwise(followed)]
    assert minutes == [5, 10, 20, 40, 60, 60, 60]

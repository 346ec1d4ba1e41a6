"""What the watchers of one hub share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from airbyte_events.events import EventFilter
from airbyte_events_provider.triggers.producer import Producer
from airbyte_events_provider.waiting.asset_state import StoredPosition
from airbyte_events_provider.waiting.shared_hub import HubKey
from airbyte_events_provider.waiting.shared_stream import Item, Stream, Subscriber, stream_of
from airbyte_events_provider.waiting.watch import Watch
from support.loops import anyio_backend as anyio_backend
from support.waiting import until

pytestmark = pytest.mark.anyio


@dataclass
class Watcher:
    left: bool = False


def item(watcher: Watcher) -> Item:
    stand_in: Any = watcher
    event: Any = None
    return Item(stand_in, event)


async def test_a_watcher_that_leaves_as_there_is_room_for_it_takes_none() -> None:
    stream, stays, leaves = Stream(HubKey("airbyte")), Watcher(), Watcher()
    # Airflow's queue has 1,024 places.
    for _ in range(512):
        await stream.put(item(stays))
    put = asyncio.create_task(stream.put(item(leaves)))
    await anyio.wait_all_tasks_blocked()
    stream.done()
    leaves.left = True
    await put
    with anyio.fail_after(30):
        await stream.put(item(stays))


class Asset:
    """The state of an asset. ``aset`` waits until the test lets it."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.may = asyncio.Event()
        self.asked = self.loaded = 0

    async def aget(self, key: str, default: Any = None) -> Any:
        self.loaded += 1
        await anyio.sleep_forever()

    async def aset(self, key: str, value: Any) -> None:
        self.asked += 1
        await self.may.wait()
        self.kept.append(value)


def subscriber(stream: Stream, asset: Asset) -> Subscriber:
    watch = Watch(key=stream.key, wanted=EventFilter(job_types=frozenset(["sync"])))
    return Subscriber(stream, watch, StoredPosition(asset, {}))


@pytest.fixture
async def producer() -> Producer:
    return Producer("airbyte")


async def test_a_slow_state_of_one_asset_keeps_no_other_watcher_waiting(producer: Producer) -> None:
    """Airflow has one watcher advance at a time."""
    stream, slow, quick = stream_of(HubKey("airbyte")), Asset(), Asset()
    quick.may.set()
    first, second = subscriber(stream, slow), subscriber(stream, quick)
    with anyio.fail_after(30):
        first.acknowledge([])
        second.acknowledge([])
        await anyio.wait_all_tasks_blocked()
    assert slow.asked == len(quick.kept) == 1
    assert not slow.kept
    slow.may.set()
    await producer.aclose()
    first.leave()
    second.leave()


async def test_the_last_place_is_saved_before_the_stream_is_closed(producer: Producer) -> None:
    stream, asset = stream_of(HubKey("airbyte")), Asset()
    one = subscriber(stream, asset)
    for _ in range(20):
        one.acknowledge([])
        await anyio.wait_all_tasks_blocked()
    assert asset.asked == 1
    closing = asyncio.create_task(producer.aclose())
    await anyio.wait_all_tasks_blocked()
    assert not closing.done()
    asset.may.set()
    with anyio.fail_after(30):
        await closing
    assert len(asset.kept) == 2, "the one under way, and one for all that came meanwhile"
    one.leave()


async def test_a_watcher_that_comes_back_waits_for_its_own_place_to_be_saved() -> None:
    stream, asset = stream_of(HubKey("airbyte")), Asset()
    one = subscriber(stream, asset)
    await anyio.wait_all_tasks_blocked()
    one.acknowledge([])
    one.leave()
    again = subscriber(stream, asset)
    await anyio.wait_all_tasks_blocked()
    assert asset.asked == 1
    assert asset.loaded == 1
    asset.may.set()
    await until(lambda: asset.loaded >= 2)
    assert len(asset.kept) == 1
    again.leave()

"""What the watchers of one hub share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from airbyte_events_provider.hub import HubKey
from airbyte_events_provider.stream import Item, Stream

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Watcher:
    left: bool = False


def item(watcher: Watcher) -> Item:
    stand_in: Any = watcher
    event: Any = None
    return Item(stand_in, event)


async def test_a_watcher_that_leaves_as_there_is_room_for_it_takes_none() -> None:
    stream, stays, leaves = Stream(HubKey("airbyte")), Watcher(), Watcher()
    room = stream._room._value
    for _ in range(room):
        await stream.put(item(stays))
    put = asyncio.create_task(stream.put(item(leaves)))
    await anyio.wait_all_tasks_blocked()
    stream.done()
    leaves.left = True
    await put
    with anyio.fail_after(5):
        await stream.put(item(stays))

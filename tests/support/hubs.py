"""Hubs of the small Airbyte, with and without the scripted feed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import httpx

from airbyte_events._utils.times import utcnow
from airbyte_events.events import JobEvent
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.completions import Completions
from airbyte_events.hub.hub import Hub
from airbyte_events.hub.position import Position
from airbyte_events.monitor.poller import Ticks
from support.airbyte import Airbyte, client_of
from support.feed import ScriptedFeed
from support.listener import API_TOKEN

FAST = Ticks(unproven=0.02, proven=0.02, idle=0.02)


def lonely(http: httpx.AsyncClient, airbyte: Airbyte, **options: Any) -> Hub:
    """A hub without a listener."""
    return Hub(client_of(http, airbyte.url), **{"ticks": FAST, **options})


def fed(http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, **options: Any) -> Hub:
    client = FeedClient(http, feed.url, API_TOKEN, hello=0.5, silence=5)
    return Hub(client_of(http, airbyte.url), client, **{"ticks": FAST, "grace": 5.0, **options})


async def next_end(ends: Completions) -> JobEvent:
    """The next completion, after any bookmarks."""
    while not isinstance(item := await ends.receive(), JobEvent):
        pass
    return item


async def told(ends: Completions, count: int = 1) -> list[int]:
    """The next jobs."""
    with anyio.fail_after(30):
        return [(await next_end(ends)).ref.job_id for _ in range(count)]


def lately() -> Position:
    """From ten minutes ago on."""
    moment = utcnow() - timedelta(minutes=10)
    return Position(since=moment, floor=moment)

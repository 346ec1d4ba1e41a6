"""The link to a listener, run again after an error that nobody expects."""

from __future__ import annotations

import anyio
import httpx
import pytest

from airbyte_events.feed.client import FeedClient, FeedFrame
from airbyte_events.hub.listener_link import ListenerLink
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.monitor.poller import Poller
from airbyte_events.store.memory.store import MemoryStore
from support.airbyte import Airbyte, client_of
from support.events import event_of
from support.feed import ScriptedFeed
from support.listener import API_TOKEN

pytestmark = pytest.mark.anyio


async def test_a_link_that_failed_follows_the_feed_again(
    http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed
) -> None:
    received = anyio.Event()
    failures = ["unexpected"]

    async def receive(frame: FeedFrame) -> None:
        if failures:
            raise RuntimeError(failures.pop())
        received.set()

    async with MemoryStore() as store:
        monitor = Monitor("default", client_of(http, airbyte.url), store)
        link = ListenerLink(
            feed=FeedClient(http, feed.url, API_TOKEN),
            instance="default",
            poller=Poller(monitor),
            receive=receive,
            on_leave=lambda: None,
            grace=30,
            away=30,
        )
        with pytest.raises(RuntimeError, match="unexpected"):
            await link.run()
        assert not link.up
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            with anyio.fail_after(30):
                await feed.until(lambda: feed.count("GET /v1/events") == 2)
                await feed.say(feed.job(event_of(1)))
                await received.wait()
            tasks.cancel_scope.cancel()

"""A connection to a listener's feed, reopened when it breaks."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import FeedError, FeedRefused
from airbyte_events.feed.client import FeedClient, FeedFrame

logger = logging.getLogger(__name__)

_RECONNECT_LIMIT = 15.0


class FeedConnection:
    """A stream of a feed that is reopened until it is left."""

    def __init__(self, feed: FeedClient, instance: str, receive: Callable[[FeedFrame], Awaitable[None]]) -> None:
        self.up = Switch()
        """Whether the stream is open."""
        self.tried = anyio.Event()
        """Set once the stream was opened, or failed to."""
        self._feed = feed
        self._instance = instance
        self._receive = receive
        self._running = anyio.CancelScope()

    @property
    def left(self) -> bool:
        return self._running.cancel_called

    def leave(self) -> None:
        """Close the stream for good."""
        self._running.cancel()

    async def run(self) -> None:
        with self._running:
            await self._follow()

    async def _follow(self) -> None:
        after = None
        failures = 0
        while True:
            try:
                async with self._feed.stream(after=after, instance=self._instance) as frames:
                    async for frame in frames:
                        failures = 0
                        after = frame.cursor or after
                        if frame.name == "hello":
                            self.up.turn(True)
                            self.tried.set()
                        await self._receive(frame)
                        if frame.name == "goaway":
                            break
            except FeedError as exc:
                failures += 1
                if isinstance(exc, FeedRefused):
                    # It may have refused the cursor. States are read again in any case.
                    after = None
                if failures == 1 or isinstance(exc, FeedRefused):
                    logger.warning("the listener's feed is down, connecting again: %s", exc)
            finally:
                self.up.turn(False)
                self.tried.set()
            await anyio.sleep(pause(failures, first=0.5, longest=_RECONNECT_LIMIT, least=0))


class Switch:
    """A value, on or off, that tasks can wait for."""

    def __init__(self) -> None:
        self.on = False
        self._turned = Wakeup()

    def turn(self, on: bool) -> None:
        if on is not self.on:
            self.on = on
            self._turned.set()

    async def turned(self, on: bool) -> None:
        while self.on is not on:
            await self._turned.wait()


async def stays_on(
    switch: Switch, seconds: float, *, within: float = math.inf, unless: Callable[[], bool] = lambda: False
) -> bool:
    """Wait until a switch has been on for some seconds without interruption.

    :param within: seconds in which it has to be turned on for that.
    :param unless: called when it has turned off; True ends the wait.
    :return: whether it has been on for so long.
    """
    ends_at = anyio.current_time() + within
    while anyio.current_time() < ends_at and not unless():
        with anyio.CancelScope(deadline=ends_at):
            await switch.turned(True)
        if switch.on:
            with anyio.move_on_after(seconds) as standing:
                await switch.turned(False)
            if standing.cancelled_caught:
                return True
    return False

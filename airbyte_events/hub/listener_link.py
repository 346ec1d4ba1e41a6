"""The link to a listener: follows its feed, polls while that is down, and sends requests about jobs."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.until import until
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import FeedError, FeedRefused, FeedUnreachable
from airbyte_events.events import Identity, JobEvent, JobRef, Progress
from airbyte_events.feed.client import FeedClient, FeedFrame, WatchAnswer
from airbyte_events.monitor.poller import Poller

logger = logging.getLogger(__name__)

MAX_AWAY = 3600.0
"""The maximum seconds until a feed that was left is followed again: the settings may have been corrected by then."""

PATIENCE_SECONDS, IMPATIENCE_SECONDS = 5.0, 2.0
"""The longest wait for a listener's states, and for those after it did not respond in time: it may wait itself for an
Airbyte that only we reach. Tasks that begin to wait are served in turn, and Airbyte has the states."""

STABLE_SECONDS = 5.0
"""How long a stream has to be open to replace polling: one that breaks sooner each time delivers nothing."""

_RECONNECT_LIMIT = 15.0


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


@dataclass(eq=False, repr=False)
class ListenerLink:
    """Follows a listener's feed, or polls.

    :param feed: the listener's client; None to poll alone.
    :param poller: polls while the feed is down or left.
    :param receive: called with each frame of the feed.
    :param on_leave: called when the feed is left.
    :param grace: seconds that the feed may be down before polling takes over.
    :param away: seconds until a feed that was left is followed again, doubled each time it is left again.
    """

    feed: FeedClient | None
    instance: str
    poller: Poller
    receive: Callable[[FeedFrame], Awaitable[None]]
    on_leave: Callable[[], object]
    grace: float
    away: float
    _takes_watches: bool = field(default=True, init=False)
    _open: Switch = field(default_factory=Switch, init=False)
    _tried: anyio.Event = field(default_factory=anyio.Event, init=False)
    """Set once the stream was opened, or failed to."""
    _following: anyio.CancelScope = field(default_factory=anyio.CancelScope, init=False)

    @property
    def up(self) -> bool:
        """Whether the feed's stream is open."""
        return self._open.on

    @property
    def left(self) -> bool:
        """Whether the feed is left for a while."""
        return self._following.cancel_called

    async def tried(self) -> None:
        """Wait until the stream was opened, or failed to; without a feed, return at once."""
        if self.feed is not None:
            await self._tried.wait()

    async def watch(
        self, jobs: Mapping[JobRef, Identity], task_urls: Mapping[JobRef, str] | None = None
    ) -> WatchAnswer | None:
        """Watch jobs at the listener, and return their states; None if its feed is down or it does not respond.

        :param task_urls: the pages of the tasks that wait for them.
        """
        if self.feed is None or not self.up or not jobs:
            return None
        seconds = PATIENCE_SECONDS if self._takes_watches else IMPATIENCE_SECONDS
        try:
            answer = None
            with anyio.move_on_after(seconds):
                answer = await self.feed.watch(jobs, task_urls)
            if answer is None:
                raise FeedUnreachable(f"{self.feed.url} did not respond within {seconds:g} s")
        except FeedError as exc:
            # They are sent again and again.
            level = logging.WARNING if self._takes_watches else logging.DEBUG
            self._takes_watches = False
            logger.log(level, "the listener accepts no watches, asking Airbyte instead: jobs=%d: %s", len(jobs), exc)
            if isinstance(exc, FeedRefused) and exc.status_code != 401:
                self.leave(str(exc))
            return None
        self._takes_watches = True
        return answer

    async def report(self, states: Collection[JobEvent]) -> Collection[JobEvent] | None:
        """Return the listener's states of the same jobs; None as for :meth:`watch`."""
        answer = await self.watch({each.ref: Identity(each.connection_id, each.started_at) for each in states})
        return None if answer is None else answer.states.values()

    async def progress(self, job_id: int, *, streams: bool, max_age: float) -> list[Progress] | None:
        """Return what the listener knows of a job's progress; None as for :meth:`watch`, or if it is too old."""
        if self.feed is None or not self.up or self.left:
            return None
        try:
            return await self.feed.progress(JobRef(self.instance, job_id), streams=streams, max_age=max_age)
        except FeedError as exc:
            logger.debug("the listener reports no progress, asking Airbyte instead: %s", exc)
            return None

    async def send_receipts(self, receipts: list[dict[str, Any]]) -> None:
        """Report which tasks have received completions; receipts that the listener does not accept are dropped."""
        if self.feed is None or not self.up or self.left:
            return
        try:
            await self.feed.request("POST", "/v1/receipts", json={"receipts": receipts})
        except FeedError as exc:
            # A listener of an earlier version has none.
            logger.debug("the listener accepts no receipts: count=%d: %s", len(receipts), exc)

    def leave(self, reason: str) -> None:
        """Leave the feed for a while and poll: it reports another Airbyte's jobs, or refuses ours."""
        if self.feed is None or self.left:
            return
        logger.error(
            "the listener serves another Airbyte, polling instead for a while: listener=%s instance=%r: %s",
            self.feed.url,
            self.instance,
            reason,
        )
        self.on_leave()
        self._following.cancel()

    async def run(self) -> None:
        """Follow the feed until cancelled; poll while it is down or left."""
        if self.feed is None:
            await self.poller.run()
            return
        times = 0
        while True:
            began = anyio.current_time()
            async with until(self._fall_back):
                with anyio.CancelScope() as self._following:
                    await self._follow(self.feed)
                times = 1 if anyio.current_time() - began > MAX_AWAY else times + 1
                await anyio.sleep(min(self.away * 2 ** min(times - 1, 10), MAX_AWAY))
            self._tried = anyio.Event()

    async def _follow(self, feed: FeedClient) -> None:
        """Receive the frames of the stream, and open it again when it breaks, until the feed is left."""
        after = None
        failures = 0
        while True:
            try:
                async with feed.stream(after=after, instance=self.instance) as frames:
                    async for frame in frames:
                        failures = 0
                        after = frame.cursor or after
                        if frame.name == "hello":
                            self._open.turn(True)
                            self._tried.set()
                        await self.receive(frame)
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
                self._open.turn(False)
                self._tried.set()
            await anyio.sleep(pause(failures, first=0.5, longest=_RECONNECT_LIMIT, least=0))

    async def _fall_back(self) -> None:
        while True:
            await self._open.turned(False)
            grace = 0 if self.left else self.grace
            if await stays_on(self._open, min(STABLE_SECONDS, grace), within=grace, unless=lambda: self.left):
                continue
            if not self.left:
                logger.warning("the listener's feed is down, polling until it is back: seconds=%g", self.grace)
            async with until(self.poller.run):
                await stays_on(self._open, min(STABLE_SECONDS, self.grace))
            logger.info("the listener's feed is back")


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

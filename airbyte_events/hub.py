"""What a process that waits for jobs embeds: one stream and one poll for all its waiters.

Push makes it fast and polling makes it certain: the hub follows a listener's feed where one is configured, asks Airbyte
itself while the feed is down, and looks now and then even when all seems well.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.bus import EventBus
from airbyte_events.client import WATCHES_PER_CALL, FeedClient, FeedFrame
from airbyte_events.errors import (
    AirbyteError,
    CursorExpired,
    FeedError,
    FeedRefused,
    HubClosed,
    UnknownJob,
    WaitTimeout,
)
from airbyte_events.events import EventFilter, JobEvent, JobRef
from airbyte_events.monitor import WATCH_SECONDS, Monitor
from airbyte_events.polling import Poller, Ticks
from airbyte_events.store.memory import MemoryStore

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

logger = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
"""A feed that is down for so long is replaced by polling until it is back."""

RECHECK_SECONDS = 600.0
"""So often the hub looks by itself while the feed is up: a listener can be alive and blind."""

_HELLO_SECONDS = 2.0
_RECONNECT_LIMIT = 15.0
_LAST_LOOK_SECONDS = 30.0


class Hub:
    """Waits for jobs of one Airbyte instance: ``async with Hub(...) as hub: event = await hub.wait(17)``.

    :param airbyte: the instance's API.
    :param feed: a listener's client; None to do without.
    :param instance: the instance's name at that listener.
    :param ticks: how often to poll while there is no feed.
    :param grace: seconds that the feed may be down before polling takes over.
    """

    def __init__(
        self,
        airbyte: AirbyteClient,
        feed: FeedClient | None = None,
        *,
        instance: str = "default",
        ticks: Ticks | None = None,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.instance = instance
        self._feed = feed
        self._grace = grace
        self._store = MemoryStore()
        self._bus = EventBus(self._store)
        self._monitor = Monitor(instance, airbyte, self._store)
        self._poller = Poller(self._monitor, ticks)
        self._waiting: Counter[int] = Counter()
        # Whose connection a job is known to be of: the feed could be that of another Airbyte.
        self._connections: dict[int, str] = {}
        self._asked: dict[int, anyio.Event] = {}
        self._unknown: set[int] = set()
        self._question = anyio.Event()
        self._up = _Switch()
        self._following = anyio.CancelScope()

    async def __aenter__(self) -> Self:
        await self._bus.__aenter__()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._run, self._ask)
        self._tasks.start_soon(self._run, self._recheck)
        if self._feed is None:
            self._tasks.start_soon(self._run, self._poller.run)
        else:
            self._tasks.start_soon(self._run, partial(self._follow, self._feed))
            self._tasks.start_soon(self._run, self._fall_back)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        # What the body raised is its own affair: a task group would wrap it.
        await self._tasks.__aexit__(None, None, None)
        await self._bus.__aexit__(None, None, None)

    async def _run(self, source: Callable[[], Awaitable[None]]) -> None:
        try:
            await source()
        except BaseException:
            # Whoever waits is told rather than left waiting.
            self._bus.close()
            for answered in self._asked.values():
                answered.set()
            raise

    @property
    def waiting(self) -> int:
        """How many jobs are waited for."""
        return len(self._waiting)

    @property
    def following(self) -> bool:
        """Whether the listener's feed is up."""
        return self._up.on

    async def wait(self, job_id: int, *, connection_id: str | None = None, until: float | None = None) -> JobEvent:
        """Wait for a job's end.

        Joins the stream, then asks for the job's state, then waits: no end falls between.

        :param job_id: which job.
        :param connection_id: the Airbyte connection that it is known to be of; a job of that number in another Airbyte
            is not taken for it.
        :param until: when to give up, in seconds since the epoch. The job's status is asked for once more before.
        :return: the job's terminal event.
        :raises UnknownJob: if Airbyte has no such job.
        :raises WaitTimeout: if the job has not ended by then.
        :raises HubClosed: if the hub ends before.
        """
        wanted = EventFilter(instances=frozenset([self.instance]), job_ids=frozenset([job_id]), terminal=True)
        self._waiting[job_id] += 1
        if connection_id is not None:
            self._connections[job_id] = connection_id
        try:
            with anyio.move_on_after(None if until is None else max(0.0, until - time.time())):
                while True:
                    with contextlib.suppress(CursorExpired), self._bus.subscribe(wanted=wanted) as events:
                        return await self._state(job_id) or (await events.receive(1))[0]
            return await self._last_look(job_id)
        except anyio.EndOfStream as exc:
            raise HubClosed(f"the wait for job {job_id} ended with the hub") from exc
        finally:
            self._waiting[job_id] -= 1
            if not self._waiting[job_id]:
                del self._waiting[job_id]
                self._connections.pop(job_id, None)
                self._monitor.forget(job_id)

    async def _last_look(self, job_id: int) -> JobEvent:
        state = None
        try:
            with anyio.move_on_after(_LAST_LOOK_SECONDS):
                state = (await self._monitor.read([job_id])).get(job_id)
        except AirbyteError as exc:
            raise WaitTimeout(
                f"job {job_id} had not ended when last heard of, and Airbyte gives no answer: {exc}"
            ) from exc
        ref = JobRef(self.instance, job_id)
        known = (await self._store.states([ref])).get(ref)
        if known is not None and known.terminal:
            return known
        raise WaitTimeout(
            f"job {job_id} is {state.status.value}"
            if state
            else f"job {job_id}: Airbyte did not tell its status in time"
        )

    async def _state(self, job_id: int) -> JobEvent | None:
        """The job's terminal event, if it has ended."""
        ref = JobRef(self.instance, job_id)
        self._unknown.discard(job_id)
        answered = self._asked.setdefault(job_id, anyio.Event())
        self._question.set()
        await answered.wait()
        if job_id in self._unknown:
            raise UnknownJob(f"Airbyte at {self._monitor.airbyte.url} knows no job {job_id}")
        state = (await self._store.states([ref])).get(ref)
        return state if state is not None and state.terminal else None

    async def _ask(self) -> None:
        """Answer all questions that came while the last answer was under way by one request."""
        while True:
            await self._question.wait()
            self._question = anyio.Event()
            if self._feed is not None and not self.following:
                # A stream that is about to be joined saves asking twice.
                with anyio.move_on_after(_HELLO_SECONDS):
                    await self._up.turned(True)
            while self._asked:
                asked = {job_id: self._asked.pop(job_id) for job_id in list(self._asked)[:WATCHES_PER_CALL]}
                try:
                    await self._watch(list(asked))
                finally:
                    for answered in asked.values():
                        answered.set()

    async def _watch(self, job_ids: list[int]) -> None:
        """Have the listener watch jobs, or watch them here, and take over their states."""
        refused: frozenset[int] = frozenset()
        if self._feed is not None and self.following:
            try:
                answer = await self._feed.watch([JobRef(self.instance, job_id) for job_id in job_ids])
            except FeedError as exc:
                logger.warning("the listener does not take watches, asking Airbyte instead: %s", exc)
            else:
                await self._absorb(list(answer.states.values()))
                refused = frozenset(ref.job_id for ref in answer.unknown)
                job_ids = [job_id for job_id in job_ids if JobRef(self.instance, job_id) not in answer.states]
        if not job_ids:
            return
        try:
            states = await self._monitor.watch(job_ids)
        except AirbyteError as exc:
            logger.warning("the state of %d jobs is not known yet, Airbyte gives no answer: %s", len(job_ids), exc)
            return
        self._unknown.update(job_id for job_id, state in states.items() if state is None)
        if there := [job_id for job_id in refused if states.get(job_id) is not None]:
            self._distrust(f"it does not know job {there[0]}, which is there")

    async def _follow(self, feed: FeedClient) -> None:
        with self._following:
            await self._follow_stream(feed)

    async def _follow_stream(self, feed: FeedClient) -> None:
        after = None
        failures = 0
        while True:
            try:
                async with feed.stream(after=after, instance=self.instance) as frames:
                    async for frame in frames:
                        failures = 0
                        after = frame.cursor or after
                        await self._take(frame)
                        if frame.name == "goaway":
                            break
            except FeedError as exc:
                failures += 1
                if failures == 1 or isinstance(exc, FeedRefused):
                    logger.warning("the listener's feed is down, coming back to it: %s", exc)
            finally:
                self._up.turn(False)
            await anyio.sleep(random.uniform(0, min(_RECONNECT_LIMIT, 0.5 * 2 ** min(failures, 10))))  # noqa: S311

    async def _take(self, frame: FeedFrame) -> None:
        if frame.event is not None:
            await self._absorb([frame.event])
        elif frame.name == "hello":
            self._up.turn(True)
            # What happened before the stream was joined is in the states.
            self._tasks.start_soon(self._watch_again)
        elif frame.name == "reset":
            logger.info("the listener's feed begins anew: %s", frame.data.get("reason"))
            self._tasks.start_soon(self._watch_again)

    async def _watch_again(self) -> None:
        # Those still to be asked for are asked for after this.
        waiting = [job_id for job_id in self._waiting if job_id not in self._asked]
        for start in range(0, len(waiting), WATCHES_PER_CALL):
            await self._watch(waiting[start : start + WATCHES_PER_CALL])

    async def _absorb(self, states: list[JobEvent]) -> None:
        ours = []
        for state in states:
            expected = self._connections.get(state.ref.job_id)
            if expected is not None and state.connection_id not in (None, expected):
                self._distrust(f"its job {state.ref.job_id} is of connection {state.connection_id}, not {expected}")
            else:
                ours.append(state)
        await self._monitor.absorb(ours)

    def _distrust(self, reason: str) -> None:
        """Leave the feed for good and poll: it tells of another Airbyte's jobs, or can't see all of ours."""
        logger.error(
            "the instance %r of the listener %s is not the Airbyte at %s, polling instead: %s",
            self.instance,
            self._feed.url if self._feed else None,
            self._monitor.airbyte.url,
            reason,
        )
        self._grace = 0.0
        self._following.cancel()

    async def _fall_back(self) -> None:
        while True:
            await self._up.turned(False)
            with anyio.move_on_after(self._grace):
                await self._up.turned(True)
            if self.following:
                continue
            logger.warning("the listener's feed has been down for %g s: polling until it is back", self._grace)
            async with anyio.create_task_group() as polling:
                # Jobs that only the listener watched are watched here from now on.
                await self._watch_here()
                polling.start_soon(self._poller.run)
                await self._up.turned(True)
                polling.cancel_scope.cancel()
            logger.info("the listener's feed is back")

    async def _watch_here(self) -> None:
        try:
            await self._monitor.watch(list(self._waiting))
        except AirbyteError as exc:
            logger.warning("Airbyte gives no answer: %s", exc)

    async def _recheck(self) -> None:
        """Renew the watches before they run out, and look now and then though all seems well."""
        while True:
            await anyio.sleep(min(RECHECK_SECONDS, WATCH_SECONDS / 2) * random.uniform(0.9, 1.1))  # noqa: S311
            if not self._waiting:
                continue
            await self._watch_again()
            if self.following:
                try:
                    await self._monitor.look()
                except AirbyteError as exc:
                    logger.warning("Airbyte gives no answer: %s", exc)


class _Switch:
    """On or off, and both can be waited for."""

    def __init__(self) -> None:
        self.on = False
        self._turned = anyio.Event()

    def turn(self, on: bool) -> None:
        if on is not self.on:
            self.on = on
            self._turned.set()
            self._turned = anyio.Event()

    async def turned(self, on: bool) -> None:
        while self.on is not on:
            await self._turned.wait()

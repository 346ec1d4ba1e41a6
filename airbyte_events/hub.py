"""What a process that waits for jobs embeds: one stream and one poll for all its waiters.

Push makes it fast and polling makes it certain: the hub follows a listener's feed where one is configured, asks Airbyte
itself while the feed is down, and looks now and then even when all seems well.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import anyio

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.backlog import Backlog
from airbyte_events.bus import EventBus
from airbyte_events.client import FeedClient, FeedFrame, WatchAnswer
from airbyte_events.ends import Ends, Place, Wanted
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
from airbyte_events.followers import FollowedStore, Followers
from airbyte_events.following import Following
from airbyte_events.monitor import TOGETHER, Monitor
from airbyte_events.pauses import pause
from airbyte_events.polling import Poller, Ticks
from airbyte_events.reasons import Reasons, lacks_reason
from airbyte_events.trust import Trust
from airbyte_events.watches import WATCH_SECONDS

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

logger = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
"""A feed that is down for so long is replaced by polling until it is back."""

RECHECK_SECONDS = 600.0
"""So often the hub looks by itself while the feed is up: a listener can be alive and blind."""

_HELLO_SECONDS = 2.0
_LAST_LOOK_SECONDS = 30.0


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who waits for a job.

    :param scope: what ends the wait.
    """

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class Hub:
    """Waits for jobs of one Airbyte instance: ``async with Hub(...) as hub: event = await hub.wait(17)``.

    :param airbyte: the instance's API.
    :param feed: a listener's client; None to do without.
    :param instance: the instance's name at that listener.
    :param ticks: how often to poll while there is no feed.
    :param grace: seconds that the feed may be down before polling takes over.
    :param recheck: see :data:`RECHECK_SECONDS`.
    """

    def __init__(
        self,
        airbyte: AirbyteClient,
        feed: FeedClient | None = None,
        *,
        instance: str = "default",
        ticks: Ticks | None = None,
        grace: float = GRACE_SECONDS,
        recheck: float = RECHECK_SECONDS,
    ) -> None:
        self.instance = instance
        self._feed = feed
        self._grace = grace
        self._recheck_every = min(recheck, WATCH_SECONDS / 2)
        self._followers = Followers()
        self._store = FollowedStore(self._followers, self._looked)
        self._bus = EventBus(self._store)
        self._monitor = Monitor(instance, airbyte, self._store)
        self._poller = Poller(self._monitor, ticks)
        self._backlog = Backlog(self._monitor, self._followers, self._learn_more)
        self._trust = Trust(self._monitor, self._monitor.absorb, self._leave_feed)
        self._following = None if feed is None else Following(feed, instance, self._take)
        self._reasons = None if feed is None else Reasons(feed, self._store)
        self._waiting: dict[int, set[_Waiter]] = {}
        self._leaving = anyio.Lock()
        self._asked: dict[int, anyio.Event] = {}
        self._question = anyio.Event()
        self._gap = anyio.Event()
        self._cut = 0

    async def __aenter__(self) -> Self:
        await self._bus.__aenter__()
        self._tasks = await anyio.create_task_group().__aenter__()
        sources = [self._ask, self._recheck, self._backlog.run]
        if self._following is None or self._reasons is None:
            sources += [self._poller.run]
        else:
            sources += [self._following.run, self._fall_back, self._close_gaps, self._trust.run, self._reasons.run]
        for source in sources:
            self._tasks.start_soon(self._run, source)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        try:
            # What the body raised is its own affair: a task group would wrap it.
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self._bus.__aexit__(None, None, None)

    async def _run(self, source: Callable[[], Awaitable[None]]) -> None:
        try:
            await source()
        except BaseException:
            # Whoever waits is told rather than left waiting.
            self._bus.close()
            self._followers.close()
            for answered in self._asked.values():
                answered.set()
            raise

    @property
    def waiting(self) -> int:
        """How many jobs are waited for."""
        return len(self._waiting)

    @property
    def followers(self) -> int:
        """How many follow connections and have been told what had ended before."""
        return self._followers.settled

    @property
    def following(self) -> bool:
        """Whether the listener's feed is up."""
        return self._following is not None and self._following.up.on

    @property
    def _left(self) -> bool:
        return self._following is not None and self._following.left

    async def wait(self, job_id: int, *, connection_id: str | None = None, until: float | None = None) -> JobEvent:
        """Wait for a job's end.

        Joins the stream, then asks for the job's state, then waits: no end falls between. A failure that was found
        before the listener had told why waits a moment for that.

        :param job_id: which job.
        :param connection_id: the Airbyte connection that it is known to be of; a job of that number in another Airbyte
            is not taken for it.
        :param until: when to give up, in seconds since the epoch. The job's status is asked for once more before.
        :return: the job's terminal event.
        :raises UnknownJob: if Airbyte has no such job.
        :raises WaitTimeout: if the job has not ended by then.
        :raises HubClosed: if the hub ends before.
        """
        deadline = math.inf if until is None else anyio.current_time() + until - time.time()
        waiter = _Waiter()
        self._waiting.setdefault(job_id, set()).add(waiter)
        if connection_id is not None:
            self._trust.expected[job_id] = connection_id.lower()
        try:
            event: JobEvent | None = None
            while event is None:
                with anyio.CancelScope(deadline=deadline) as waiter.scope:
                    event = await self._end_of(job_id)
                event = event or await self._last_look(job_id, deadline)
            event = await self.explain(event)
            # One in each turn of the event loop: what hundreds do that are told at once would hold it up.
            async with self._leaving:
                return event
        except anyio.EndOfStream as exc:
            raise HubClosed(f"the wait for job {job_id} ended with the hub") from exc
        finally:
            self._leave(job_id, waiter)

    def _leave(self, job_id: int, waiter: _Waiter) -> None:
        self._waiting[job_id].remove(waiter)
        if not self._waiting[job_id]:
            del self._waiting[job_id]
            self._trust.expected.pop(job_id, None)
            self._monitor.watches.forget(job_id)

    @contextlib.contextmanager
    def follow(self, wanted: Wanted, place: Place) -> Iterator[Ends]:
        """Be told of ends, whoever started the jobs: ``with hub.follow(wanted, place) as ends: await ends.receive()``.

        Joins the stream, then looks up what has ended since the place, then goes on with what ends: each job's end is
        told once. When the hub ends, so do the ends, after what was taken in is delivered.

        :param wanted: which ends.
        :param place: where to begin. It is taken over; whoever needs it still makes a copy.
        """
        with self._followers.joined(Ends(wanted, place)) as ends, self._monitor.watches.followed():
            yield ends

    async def explain(self, event: JobEvent) -> JobEvent:
        """A failure with its reason, where a listener can tell or will in a moment; any other event as it is."""
        if self._reasons is None or not self.following or self._left or not lacks_reason(event):
            return event
        return await self._reasons.explain(event)

    async def _end_of(self, job_id: int) -> JobEvent:
        wanted = EventFilter(instances=frozenset([self.instance]), job_ids=frozenset([job_id]), terminal=True)
        while True:
            with contextlib.suppress(CursorExpired), self._bus.subscribe(wanted=wanted) as events:
                event = await self._state(job_id) or (await events.receive(1))[0]
                if not self._is_foreign(event):
                    return event
                self._distrust(event)

    async def _last_look(self, job_id: int, deadline: float) -> JobEvent | None:
        """Ask Airbyte itself, when the time is up or the job is said to be unknown; None if that was too early."""
        reason = f"Airbyte did not tell the status of job {job_id} in time"
        cause: AirbyteError | None = None
        try:
            with anyio.move_on_after(_LAST_LOOK_SECONDS):
                job = (await self._monitor.read([job_id]))[job_id]
                if job is None:
                    raise UnknownJob(f"Airbyte at {self._monitor.airbyte.url} knows no job {job_id}")
                reason = f"job {job_id} is {job.status.value}"
        except AirbyteError as exc:
            reason, cause = f"job {job_id} had not ended when last heard of, and Airbyte gives no answer: {exc}", exc
        state = await self._known(job_id)
        if state is not None and state.terminal and not self._is_foreign(state):
            return state
        if anyio.current_time() < deadline:
            # A job that was created just now may not be known everywhere in Airbyte yet.
            return None
        raise WaitTimeout(reason) from cause

    async def _state(self, job_id: int) -> JobEvent | None:
        """The job's terminal event, if it has ended."""
        if self._bus.closed:
            raise anyio.EndOfStream
        await self._ask_for([job_id])[0].wait()
        state = await self._known(job_id)
        return state if state is not None and state.terminal else None

    async def _known(self, job_id: int) -> JobEvent | None:
        ref = JobRef(self.instance, job_id)
        return (await self._store.states([ref])).get(ref)

    def _ask_for(self, job_ids: Iterable[int]) -> list[anyio.Event]:
        """Have these asked for, together with all that are to be asked for already."""
        self._question.set()
        return [self._asked.setdefault(job_id, anyio.Event()) for job_id in job_ids]

    async def _ask(self) -> None:
        """Answer the questions that came while the last answer was under way together."""
        while True:
            await self._question.wait()
            self._question = anyio.Event()
            if self._following is not None:
                # A stream that is about to be joined saves asking twice.
                with anyio.move_on_after(_HELLO_SECONDS):
                    await self._following.tried.wait()
            while self._asked:
                asked = {job_id: self._asked.pop(job_id) for job_id in list(self._asked)[:TOGETHER]}
                try:
                    await self._watch([job_id for job_id in asked if job_id in self._waiting])
                finally:
                    for answered in asked.values():
                        answered.set()

    async def _watch(self, job_ids: list[int]) -> None:
        """Have the listener watch jobs, and watch them here, too: what it can't tell is asked of Airbyte."""
        answer = await self._watch_there([JobRef(self.instance, job_id) for job_id in job_ids])
        if answer is not None:
            await self._absorb(answer.states.values())
        try:
            states = await self._monitor.watch(job_ids)
        except AirbyteError as exc:
            logger.warning("the state of %d jobs is not known yet, Airbyte gives no answer: %s", len(job_ids), exc)
            return
        finally:
            for left in set(job_ids) - self._waiting.keys():
                self._monitor.watches.forget(left)
        for job_id, state in states.items():
            if state is None:
                # They look once more, and give up.
                for waiter in self._waiting.get(job_id, ()):
                    waiter.scope.cancel()
            elif answer is not None and state.ref in answer.unknown:
                self._leave_feed(f"it does not know job {job_id}, which is there")

    async def _watch_there(self, refs: Collection[JobRef]) -> WatchAnswer | None:
        """Have the listener watch jobs, if its feed is up, and tell their states."""
        if self._feed is None or not self.following or not refs:
            return None
        try:
            return await self._feed.watch(refs)
        except FeedError as exc:
            logger.warning("the listener does not take watches, asking Airbyte instead: %s", exc)
            if isinstance(exc, FeedRefused) and exc.status_code != 401:
                self._leave_feed(str(exc))
            return None

    async def _learn_more(self, states: Sequence[JobEvent]) -> None:
        """Take over what the listener knows of jobs that Airbyte has told of: names, reasons, who is who."""
        told = {state.ref: state for state in states}
        answer = await self._watch_there(told)
        if answer is None:
            return
        for ref in told.keys() & answer.unknown:
            self._leave_feed(f"it does not know job {ref.job_id}, which is there")
        for ref in told.keys() & answer.states.keys():
            mine, theirs = (each.connection_id or "" for each in (told[ref], answer.states[ref]))
            if mine.lower() != theirs.lower():
                self._leave_feed(f"its job {ref.job_id} is of connection {theirs}, not {mine}")
        if not self._left:
            same = [state for ref, state in answer.states.items() if state.status is told[ref].status]
            await self._monitor.absorb(same)

    async def _take(self, frame: FeedFrame) -> None:
        if frame.event is not None:
            await self._absorb([frame.event])
        elif frame.name in ("hello", "reset"):
            if frame.name == "reset":
                logger.info("the listener's feed begins anew: %s", frame.data.get("reason"))
            # What happened before the stream was joined is in the states.
            self._ask_for(self._waiting)
            self._gap.set()

    async def _absorb(self, states: Iterable[JobEvent]) -> None:
        """Take over what the listener tells of jobs that are waited for, and of connections that are followed."""
        ours: list[JobEvent] = []
        doubted: list[JobEvent] = []
        for state in states:
            if state.ref.job_id in self._waiting:
                ours.append(state)
            elif self._followers.wants(state):
                known = self._followers.names(state.connection_id) or self._trust.is_ours(state)
                (ours if known else doubted).append(state)
        foreign = next(filter(self._is_foreign, ours), None)
        if foreign is not None:
            self._distrust(foreign)
        elif not self._left:
            await self._monitor.absorb(ours)
            self._trust.doubt(doubted)

    def _is_foreign(self, state: JobEvent) -> bool:
        return self._feed is not None and self._trust.is_foreign(state, left=self._left)

    def _distrust(self, foreign: JobEvent) -> None:
        """Leave the feed, which tells of another Airbyte's jobs, forget what it told, and ask Airbyte itself."""
        self._leave_feed(
            f"its job {foreign.ref.job_id} is of connection {foreign.connection_id},"
            f" not {self._trust.expected[foreign.ref.job_id]}"
        )
        self._trust.forgotten = self._store.forget_states()
        self._ask_for(self._waiting)

    def _leave_feed(self, reason: str) -> None:
        """Leave the feed for good and poll: it tells of another Airbyte's jobs, or can't see all of ours."""
        if self._feed is None or self._following is None or self._left:
            return
        logger.error(
            "the instance %r of the listener %s is not the Airbyte at %s, polling instead: %s",
            self.instance,
            self._feed.url,
            self._monitor.airbyte.url,
            reason,
        )
        self._grace = 0.0
        self._following.leave()

    async def _fall_back(self) -> None:
        assert self._following is not None  # noqa: S101 -- only then is there something to fall back from
        up = self._following.up
        while True:
            await up.turned(False)
            with anyio.move_on_after(self._grace):
                await up.turned(True)
            if up.on:
                continue
            logger.warning("the listener's feed has been down for %g s: polling until it is back", self._grace)
            async with anyio.create_task_group() as polling:
                polling.start_soon(self._poller.run)
                await up.turned(True)
                polling.cancel_scope.cancel()
            logger.info("the listener's feed is back")

    async def _recheck(self) -> None:
        """Renew the watches before they run out, and look now and then though all seems well."""
        while True:
            await anyio.sleep(self._recheck_every * random.uniform(0.9, 1.1))  # noqa: S311
            if not self._waiting and not len(self._followers):
                continue
            self._ask_for(self._waiting)
            if self.following:
                try:
                    await self._poller.tick()
                except AirbyteError as exc:
                    logger.warning("Airbyte gives no answer: %s", exc)

    async def _close_gaps(self) -> None:
        """Find what followers were not told while the stream was not there, whenever it is joined."""
        while True:
            await self._gap.wait()
            self._gap = anyio.Event()
            failures = 0
            while len(self._followers):
                try:
                    found = await self._monitor.look()
                    if found:
                        await self._learn_more([state] if (state := await self._known(max(found))) else [])
                    break
                except AirbyteError as exc:
                    failures += 1
                    logger.warning("what ended while the feed was down is not known yet: %s", exc)
                await anyio.sleep(pause(failures))

    def _looked(self, moment: datetime) -> None:
        """A look was taken in."""
        if self._monitor.counters.cut > self._cut:
            self._cut = self._monitor.counters.cut
            self._followers.miss()
        else:
            self._followers.complete(moment)

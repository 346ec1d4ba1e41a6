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
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.supervision import supervise
from airbyte_events._utils.times import format_time, utcnow
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.bus.bus import EventBus
from airbyte_events.errors import (
    AirbyteError,
    CursorExpired,
    FeedError,
    FeedRefused,
    FeedUnreachable,
    HubClosed,
    UnknownJob,
    WaitTimeout,
)
from airbyte_events.events import EventFilter, Identity, JobEvent, JobRef, same_job
from airbyte_events.feed.client import FeedClient, FeedFrame, WatchAnswer
from airbyte_events.hub.catch_up import Backlog
from airbyte_events.hub.failure_reasons import Reasons, lacks_reason
from airbyte_events.hub.feed_connection import Following, Switch
from airbyte_events.hub.feed_identity import Trust
from airbyte_events.hub.subscribers import FollowedStore, Followers
from airbyte_events.hub.subscription import Ends, Place, Wanted
from airbyte_events.jobs import Job, JobSystem
from airbyte_events.monitor.monitor import BURST, LOOKBACK, TOGETHER, Monitor
from airbyte_events.monitor.observation import event_of
from airbyte_events.monitor.poller import Poller, Ticks
from airbyte_events.monitor.watchlist import WATCH_SECONDS

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

logger = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
"""A feed that is down for so long is replaced by polling until it is back."""

RECHECK_SECONDS = 600.0
"""So often the hub looks by itself while the feed is up: a listener can be alive and blind."""

AWAY_SECONDS = 300.0
LONGEST_AWAY = 3600.0
"""A feed that was left is followed again after so long, and twice that each time it is left again: what it was left for
may have been put right."""

STANDING_SECONDS = 5.0
"""A stream that has stood for so long is up: one that breaks sooner, again and again, brings nothing."""

_HELLO_SECONDS = 2.0
_LAST_LOOK_SECONDS = 30.0


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who waits for a job.

    :param identity: what is known of the job; Airbyte's own word adds to it.
    :param began: when the wait did.
    :param asked: whether Airbyte itself has reported the job since.
    :param scope: what ends the wait.
    """

    identity: Identity
    began: datetime = field(default_factory=utcnow)
    asked: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def learn(self, state: JobEvent) -> None:
        """Airbyte itself has reported the job."""
        self.asked = True
        self.identity = Identity(
            self.identity.connection_id or state.connection_id, self.identity.started_at or state.started_at
        )

    def takes(self, state: JobEvent) -> bool:
        """Return whether this is the end of the job, and not of one that had its number before."""
        if not state.terminal or not self.identity.fits(state):
            return False
        known = None not in (self.identity.started_at, state.started_at)
        return known or self.asked or state.observed_at >= self.began


class Hub:
    """Waits for jobs of one Airbyte instance: ``async with Hub(...) as hub: event = await hub.wait(17)``.

    :param system: the instance's API.
    :param feed: a listener's client; None to do without.
    :param instance: the instance's name at that listener.
    :param ticks: how often to poll while there is no feed.
    :param grace: seconds that the feed may be down before polling takes over.
    :param recheck: see :data:`RECHECK_SECONDS`.
    :param away: seconds, see :data:`AWAY_SECONDS`.
    """

    def __init__(
        self,
        system: JobSystem,
        feed: FeedClient | None = None,
        *,
        instance: str = "default",
        ticks: Ticks | None = None,
        grace: float = GRACE_SECONDS,
        recheck: float = RECHECK_SECONDS,
        away: float = AWAY_SECONDS,
    ) -> None:
        self.instance = instance
        self._feed = feed
        self._grace = grace
        self._recheck_every = min(recheck, WATCH_SECONDS / 2)
        self._followers = Followers()
        self._store = FollowedStore(self._followers, self._looked)
        self._bus = EventBus(self._store)
        self._monitor = Monitor(instance, system, self._store)
        self._poller = Poller(self._monitor, ticks)
        self._backlog = Backlog(self._monitor, self._followers, self._learn_more)
        self._trust = Trust(self._monitor, self._told, self._monitor.absorb, self._refute)
        self._following = None if feed is None else Following(feed, instance, self._receive)
        self._away = away
        self._reasons = None if feed is None else Reasons(feed, self._store)
        self._waiting: dict[int, set[_Waiter]] = {}
        self._leaving = anyio.Lock()
        # Jobs that the listener can't report, and those of which what is known may be another job's: Airbyte is asked.
        self._alone: set[int] = set()
        self._doubted: set[int] = set()
        self._lonely = Wakeup()
        self._asked: dict[int, anyio.Event] = {}
        self._question = Wakeup()
        self._gap = Wakeup()
        self._cut = 0

    async def __aenter__(self) -> Self:
        await self._bus.__aenter__()
        self._tasks = await anyio.create_task_group().__aenter__()
        sources = [self._ask, self._recheck, self._follow_alone, self._backlog.run]
        if self._following is None or self._reasons is None:
            sources += [self._poller.run]
        else:
            sources += [self._follow, self._close_gaps, self._trust.run, self._reasons.run]
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
            await supervise(f"the hub of {self.instance}", source, {})
        except BaseException:
            # The hub has ended: whoever waits is told rather than left waiting.
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

    async def wait(
        self,
        job_id: int,
        *,
        connection_id: str | None = None,
        started_at: datetime | None = None,
        until: float | None = None,
    ) -> JobEvent:
        """Wait for a job's end.

        Joins the stream, then asks for the job's state, then waits: no end falls between. A failure that was found
        before the listener had told why waits a moment for that.

        Numbers are given again once Airbyte's database was restored or made anew. Whoever does not know the rest gets
        the end of the job that has the number: Airbyte is asked for it, where an end is known from before the wait.

        :param job_id: which job.
        :param connection_id: the Airbyte connection that it is known to be of.
        :param started_at: when it is known to have been created.
        :param until: when to give up, in seconds since the epoch. The job's status is asked for once more before.
        :return: the job's terminal event.
        :raises UnknownJob: if Airbyte has no such job, or another one of that number.
        :raises WaitTimeout: if the job has not ended by then.
        :raises HubClosed: if the hub ends before.
        """
        deadline = math.inf if until is None else anyio.current_time() + until - time.time()
        looks = 0
        waiter = _Waiter(Identity(connection_id, started_at))
        self._waiting.setdefault(job_id, set()).add(waiter)
        try:
            event: JobEvent | None = None
            while event is None:
                with anyio.CancelScope(deadline=deadline) as waiter.scope:
                    if looks:
                        # Airbyte says one thing and then another: not in a circle as fast as it goes.
                        await anyio.sleep(pause(looks - 1, first=0.5, least=0))
                    event = await self._end_of(job_id, waiter)
                event = event or await self._last_look(job_id, waiter, deadline)
                looks += 1
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
            self._alone.discard(job_id)
            self._doubted.discard(job_id)
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

    async def _end_of(self, job_id: int, waiter: _Waiter) -> JobEvent:
        wanted = EventFilter(instances=frozenset([self.instance]), job_ids=frozenset([job_id]), terminal=True)
        while True:
            with contextlib.suppress(CursorExpired), self._bus.subscribe(wanted=wanted) as events:
                while (event := await self._state(job_id, waiter)) is None:
                    event = (await events.receive(1))[0]
                    if waiter.takes(event):
                        return event
                    # Which job's end it is is not known: Airbyte is asked.
                    self._ask_alone(doubted=[job_id])
                return event

    async def _last_look(self, job_id: int, waiter: _Waiter, deadline: float) -> JobEvent | None:
        """Ask Airbyte itself, when the time is up or the job is said to be unknown; None if that was too early."""
        reason = f"Airbyte did not report the status of job {job_id} in time"
        cause: AirbyteError | None = None
        try:
            with anyio.move_on_after(_LAST_LOOK_SECONDS):
                job = (await self._monitor.read([job_id]))[job_id] or await self._listed(job_id, waiter)
                if job is not None:
                    self._told_by_airbyte(waiter, event_of(self.instance, job))
                    reason = f"job {job_id} is {job.status.value}"
                elif (state := await self._known(job_id)) is None or not waiter.takes(state):
                    raise UnknownJob(f"Airbyte at {self._monitor.system.url} knows no job {job_id}")
        except AirbyteError as exc:
            reason, cause = f"job {job_id} had not ended when last heard of, and Airbyte gives no answer: {exc}", exc
        state = await self._known(job_id)
        if state is not None and waiter.takes(state):
            return state
        if anyio.current_time() < deadline:
            # A job that was created just now may not be known everywhere in Airbyte yet.
            return None
        raise WaitTimeout(reason) from cause

    async def _listed(self, job_id: int, waiter: _Waiter) -> Job | None:
        """Return a job that Airbyte says it does not know, if it lists it: some releases deny jobs that are there."""
        state = await self._known(job_id)
        connection_id = waiter.identity.connection_id or (state.connection_id if state is not None else None)
        started_at = waiter.identity.started_at or (state.started_at if state is not None else None)
        if connection_id is None:
            return None
        since = (started_at or waiter.began) - LOOKBACK
        async for page in self._monitor.system.list_changed(since=since, connection_id=connection_id):
            if found := [job for job in page.jobs if job.job_id == job_id]:
                await self._monitor.take_in(found)
                return found[0]
        return None

    def _told_by_airbyte(self, waiter: _Waiter, state: JobEvent) -> None:
        """:raises UnknownJob: if that is another job than the one that is waited for."""
        if not waiter.identity.fits(state):
            mine = waiter.identity
            raise UnknownJob(
                f"Airbyte at {self._monitor.system.url} knows no job {state.ref.job_id} of connection"
                f" {mine.connection_id} that was created at {format_time(mine.started_at)}: the job of that number is"
                f" of connection {state.connection_id} and was created at {format_time(state.started_at)}. Airbyte"
                " gives numbers again when its database was restored or made anew"
            )
        waiter.learn(state)

    async def _state(self, job_id: int, waiter: _Waiter) -> JobEvent | None:
        """The job's terminal event, if it has ended."""
        if self._bus.closed:
            raise anyio.EndOfStream
        await self._ask_for([job_id])[0].wait()
        state = await self._known(job_id)
        return state if state is not None and waiter.takes(state) else None

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
        """Have the listener watch jobs, and watch them here, too: what it can't report is asked of Airbyte."""
        answer = await self._watch_there({JobRef(self.instance, job_id): self._identity(job_id) for job_id in job_ids})
        doubted: list[JobEvent] = []
        if answer is not None:
            doubted = await self._absorb(answer.states.values())
            self._ask_alone(doubted=[each.ref.job_id for each in doubted])
            # One of these says nothing of the others: Airbyte may tell the listener of it later, or never.
            self._alone -= set(job_ids)
            self._ask_alone(ref.job_id for ref in answer.unknown)
        await self._ask_airbyte(job_ids)
        # Of the same job, the listener may know more than Airbyte has just said.
        await self._store.annotate(doubted)
        mine = await self._store.states([each.ref for each in doubted])
        # Of another one it does not know yet, and would not watch it.
        await self._told(
            [mine[each.ref] for each in doubted if each.ref in mine and not same_job(mine[each.ref], each)]
        )

    def _identity(self, job_id: int) -> Identity:
        """What is known of a job that is waited for."""
        return next((each.identity for each in self._waiting.get(job_id, ())), Identity())

    async def _ask_airbyte(self, job_ids: Collection[int], *, again: bool = False) -> None:
        """Watch jobs: Airbyte is asked for those of which nothing is known, or perhaps another job's state.

        :param again: ask for all of them.
        """

        def doubt(state: JobEvent) -> bool:
            waiters = self._waiting.get(state.ref.job_id, ())
            return (
                again
                or state.ref.job_id in self._doubted
                or any(not each.identity.fits(state) for each in waiters)
                or (state.terminal and not all(each.takes(state) for each in waiters))
            )

        known = await self._store.states([JobRef(self.instance, job_id) for job_id in job_ids])
        doubted = {ref.job_id for ref, state in known.items() if doubt(state)}
        states: dict[int, JobEvent | None] = {}
        try:
            states = await self._monitor.watch(job_ids, doubt)
        except AirbyteError as exc:
            logger.warning("the state of %d jobs is not known yet, Airbyte gives no answer: %s", len(job_ids), exc)
        finally:
            for left in set(job_ids) - self._waiting.keys():
                self._monitor.watches.forget(left)
        ended = {ref.job_id for ref, state in known.items() if state.terminal}
        for job_id, state in states.items():
            self._doubted.discard(job_id)
            if state is None or job_id in doubted or JobRef(self.instance, job_id) not in known:
                self._answer(job_id, state, wake=again and job_id in ended)
        # An end that is known, and may be another job's, does not come again by itself.
        self._ask_alone(doubted=doubted - states.keys())

    def _ask_alone(self, job_ids: Iterable[int] = (), *, doubted: Iterable[int] = ()) -> None:
        """Have Airbyte asked for jobs: at the poll interval, or until it has answered for those that are doubted."""
        self._alone |= self._waiting.keys() & set(job_ids)
        self._doubted |= self._waiting.keys() & set(doubted)
        self._lonely.set()

    def _answer(self, job_id: int, state: JobEvent | None, *, wake: bool) -> None:
        """Airbyte itself has reported a job, or that it does not know it.

        :param wake: nobody waits for this answer.
        """
        for waiter in self._waiting.get(job_id, ()):
            if state is not None and waiter.identity.fits(state):
                waiter.learn(state)
                if not wake:
                    continue
            # They ask once more, and give up if it is so.
            waiter.scope.cancel()

    async def _follow_alone(self) -> None:
        """Poll for those jobs alone that the listener can't report, or of which something doubtful is known."""
        while True:
            while not self._alone and not self._doubted:
                await self._lonely.wait()
            await anyio.sleep(self._poller.seconds_between_looks)
            asked = sorted(self._doubted)[:TOGETHER]
            try:
                if self.following and len(self._alone) >= BURST:
                    await self._poller.tick()
                elif self.following:
                    asked += self._alone - self._doubted
                await self._ask_airbyte(asked, again=True)
            except AirbyteError as exc:
                logger.warning("Airbyte gives no answer: %s", exc)

    async def _watch_there(self, jobs: Mapping[JobRef, Identity]) -> WatchAnswer | None:
        """Have the listener watch jobs, if its feed is up, and report their states."""
        if self._feed is None or not self.following or not jobs:
            return None
        try:
            return await self._feed.watch(jobs)
        except FeedError as exc:
            logger.warning("the listener does not take watches, asking Airbyte instead: %s", exc)
            if isinstance(exc, FeedRefused) and exc.status_code != 401:
                self._leave_feed(str(exc))
            return None

    async def _told(self, states: Collection[JobEvent]) -> Collection[JobEvent] | None:
        """What the listener reports of these jobs, which are Airbyte's own word."""
        answer = await self._watch_there({each.ref: Identity(each.connection_id, each.started_at) for each in states})
        return None if answer is None else answer.states.values()

    async def _learn_more(self, states: Sequence[JobEvent]) -> None:
        """Take over what the listener knows of jobs that Airbyte has reported: names, reasons, who is who."""
        mine = {state.ref: state for state in states}
        theirs = await self._told(states) or ()
        self._trust.doubt((each for each in theirs if not same_job(each, mine[each.ref])), disputed=True)
        if not self._left:
            same = [each for each in theirs if same_job(each, mine[each.ref]) and each.status is mine[each.ref].status]
            await self._monitor.absorb(same)

    async def _receive(self, frame: FeedFrame) -> None:
        """Take a frame; open the feed anew if that can't be done, whatever the reason.

        :raises FeedUnreachable: if it can't.
        """
        try:
            await self._take(frame)
        except Exception as exc:
            logger.exception("a frame of the listener's feed could not be taken: %s", frame.name)
            raise FeedUnreachable("what it brought could not be taken") from exc

    async def _take(self, frame: FeedFrame) -> None:
        if frame.event is not None:
            if await self._absorb([frame.event]):
                self._ask_alone(doubted=[frame.event.ref.job_id])
                self._ask_for([frame.event.ref.job_id])
        elif frame.name in ("hello", "reset", "job"):
            if frame.name == "reset":
                logger.info("the listener's feed begins anew: %s", frame.data.get("reason"))
            elif frame.name == "job":
                logger.warning("an event of the listener's feed can't be read, asking for the states: %s", frame.cursor)
            # What happened before the stream was joined is in the states.
            self._ask_for(self._waiting)
            self._gap.set()

    async def _absorb(self, states: Iterable[JobEvent]) -> list[JobEvent]:
        """Take over what the listener reports of jobs that are waited for, and of connections that are followed.

        :return: states of jobs that are waited for which may be another job's: a reason to ask Airbyte.
        """
        ours: list[JobEvent] = []
        doubted: list[JobEvent] = []
        for state in states:
            job_id, waiters = state.ref.job_id, self._waiting.get(state.ref.job_id)
            if not waiters:
                if self._followers.wants(state):
                    if self._trust.is_ours(state):
                        ours.append(state)
                    else:
                        self._trust.doubt([state])
            elif not all(each.identity.fits(state) for each in waiters):
                # The listener's is another job, or the waiter's number was given to another meanwhile.
                self._trust.doubt([state], disputed=True)
                doubted.append(state)
            elif job_id in self._alone or (state.terminal and not all(each.takes(state) for each in waiters)):
                doubted.append(state)
            else:
                ours.append(state)
        if not self._left:
            await self._monitor.absorb(ours)
        return doubted

    def _refute(self, reason: str) -> None:
        """Leave the feed, which reports another Airbyte's jobs, forget what it reported, and ask Airbyte itself."""
        self._leave_feed(reason)
        self._store.forget_states()
        self._ask_for(self._waiting)

    def _leave_feed(self, reason: str) -> None:
        """Leave the feed for a while and poll: it reports another Airbyte's jobs, or does not take ours."""
        if self._feed is None or self._following is None or self._left:
            return
        logger.error(
            "the instance %r of the listener %s is not the Airbyte at %s, polling instead for a while: %s",
            self.instance,
            self._feed.url,
            self._monitor.system.url,
            reason,
        )
        self._trust.forget()
        self._following.leave()

    async def _follow(self) -> None:
        """Follow the feed; poll while it is down, and while it is left."""
        times = 0
        while self._feed is not None and self._following is not None:
            began = anyio.current_time()
            async with anyio.create_task_group() as polling:
                polling.start_soon(self._fall_back, self._following)
                await self._following.run()
                times = 1 if anyio.current_time() - began > LONGEST_AWAY else times + 1
                await anyio.sleep(min(self._away * 2 ** min(times - 1, 10), LONGEST_AWAY))
                polling.cancel_scope.cancel()
            self._following = Following(self._feed, self.instance, self._receive)

    async def _fall_back(self, following: Following) -> None:
        up = following.up
        while True:
            await up.turned(False)
            grace = 0 if following.left else self._grace
            standing = min(STANDING_SECONDS, grace)
            if await _stands(up, standing, within=grace, unless=lambda: following.left):
                continue
            if not following.left:
                logger.warning("the listener's feed has been down for %g s: polling until it is back", self._grace)
            async with anyio.create_task_group() as polling:
                polling.start_soon(self._poller.run)
                await _stands(up, min(STANDING_SECONDS, self._grace))
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


async def _stands(
    up: Switch, seconds: float, *, within: float = math.inf, unless: Callable[[], bool] = lambda: False
) -> bool:
    """Wait until a switch has been on for so long without a break.

    :param within: seconds in which it has to be on for that; what is on then is waited for.
    :param unless: asked when it has turned off; then it is not waited for any more.
    :return: whether it has.
    """
    ends_at = anyio.current_time() + within
    while anyio.current_time() < ends_at and not unless():
        with anyio.CancelScope(deadline=ends_at):
            await up.turned(True)
        if up.on:
            with anyio.move_on_after(seconds) as standing:
                await up.turned(False)
            if standing.cancelled_caught:
                return True
    return False

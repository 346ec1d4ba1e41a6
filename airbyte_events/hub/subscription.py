"""The ends of jobs, whoever started them, as one follower of connections is told of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import anyio

from airbyte_events._utils.times import EARLIEST, format_time, parse_time
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.events import JobEvent, JobStatus, reported_job_type

KEPT = timedelta(hours=1)
"""Within so long before the last complete look, an end is known by its job; before that, by its time."""

MOST_TOLD = 30_000
"""Jobs that a place remembers."""

BUFFER = 1_000
BUFFER_BYTES = 2**20
"""Ends that wait for one follower, and about how many bytes of them. One that falls further behind is told the rest by
a look of its own."""

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which ends somebody wants. Every criterion that is given must hold; within one, any value does.

    :param connection_ids: Airbyte connections (UUIDs, in any case); empty for all.
    :param job_types: ``sync``, ``reset``, ``clear``, ``refresh``; empty for all. Airbyte reports a clear as ``reset``:
        either name means both.
    :param statuses: terminal ones; empty for all.
    """

    connection_ids: frozenset[str] = frozenset()
    job_types: frozenset[str] = frozenset()
    statuses: frozenset[JobStatus] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "connection_ids", frozenset(map(str.lower, self.connection_ids)))
        object.__setattr__(self, "job_types", frozenset(map(reported_job_type, self.job_types)))

    @property
    def refreshes(self) -> bool:
        """Whether ends of refreshes can be among them."""
        return not self.job_types or "refresh" in self.job_types

    def matches(self, event: JobEvent) -> bool:
        return (
            event.terminal
            and (not self.connection_ids or (event.connection_id or "").lower() in self.connection_ids)
            and (not self.job_types or reported_job_type(event.job_type or "") in self.job_types)
            and (not self.statuses or event.status in self.statuses)
        )


def ended_before(event: JobEvent, moment: datetime) -> bool:
    """Whether a job surely ended before that moment: a time in whole seconds may be cut, and mean any time in it."""
    if event.finished_at is None:
        return False
    cut = event.finished_at.microsecond == 0
    return event.finished_at + _SECOND <= moment if cut else event.finished_at < moment


class Told(NamedTuple):
    """A job whose end was told: numbers are given again once Airbyte's database was restored or made anew.

    :param started: when it was created, in whole seconds since the epoch; None is unknown.
    """

    job_id: int
    started: int | None

    @classmethod
    def of(cls, event: JobEvent) -> Told:
        return cls(event.ref.job_id, None if event.started_at is None else int(event.started_at.timestamp()))


@dataclass(slots=True, kw_only=True)
class Place:
    """Up to where somebody was told of ends. Times are Airbyte's.

    :param since: all that ended before was told; None for who wants to know of what ends from now on.
    :param floor: what ended before is of no interest, or was told.
    :param told: the jobs that were told, and the first complete look after that.
    """

    since: datetime | None = None
    floor: datetime | None = None
    told: dict[Told, datetime | None] = field(default_factory=dict)

    def knows(self, event: JobEvent) -> bool:
        """Return whether the end was told, or lies too far back."""
        if self.floor is not None and ended_before(event, self.floor):
            return True
        # A place that an older version kept does not say when its jobs were created.
        return Told.of(event) in self.told or Told(event.ref.job_id, None) in self.told

    def tell(self, event: JobEvent) -> None:
        """The end of this job was told."""
        self.told[Told.of(event)] = None
        if len(self.told) > MOST_TOLD:
            del self.told[next(iter(self.told))]

    def complete(self, moment: datetime, floor: datetime | None = None) -> None:
        """All that ended before that moment was told, but for what ended before the floor."""
        if self.since is not None and moment <= self.since:
            return
        self.since = moment
        self.floor = max(each for each in (self.floor, floor, moment - KEPT) if each is not None)
        self.told = {told: seen or moment for told, seen in self.told.items() if seen is None or seen > moment - KEPT}

    def copy(self) -> Place:
        return replace(self, told=dict(self.told))

    def data(self) -> dict[str, Any]:
        """Return the place as plain JSON values, which older versions can read, too."""
        return {
            "since": format_time(self.since),
            "floor": format_time(self.floor),
            "told": [each.job_id for each in self.told],
            "started": [each.started for each in self.told],
        }

    @classmethod
    def from_data(cls, data: object) -> Place:
        """Return the place that :meth:`data` wrote, in this version or an older one.

        :raises ValueError: if the object is no place's.
        """
        if not isinstance(data, dict) or not isinstance(data.get("told"), list):
            raise ValueError("not a place")
        job_ids, started = data["told"], data.get("started")
        if not isinstance(started, list) or len(started) != len(job_ids):
            started = [None] * len(job_ids)
        if not all(isinstance(job_id, int) for job_id in job_ids):
            raise ValueError("not a place: a job id that is no number")
        told = [Told(job_id, at if isinstance(at, int) else None) for job_id, at in zip(job_ids, started, strict=True)]
        return cls(since=parse_time(data.get("since")), floor=parse_time(data.get("floor")), told=dict.fromkeys(told))


@dataclass(frozen=True, slots=True)
class Mark:
    """All that ended before this moment has been told, but for what ended before the floor."""

    moment: datetime
    floor: datetime | None


class Ends:
    """What one follower is told, in order: ``async for event in ends``. It ends when the hub does.

    :param wanted: which ends.
    :param place: where to begin; it moves on as ends are taken in here.
    """

    def __init__(self, wanted: Wanted, place: Place) -> None:
        self.wanted = wanted
        self.place = place
        self.late = True
        """Whether what has ended before is still to be looked up."""
        self.joined_at = anyio.current_time()
        self.on_overdue: Callable[[], object] = lambda: None
        """Called when a look is to be made for this follower."""
        self._held: deque[JobEvent | Mark] = deque()
        self._bytes = 0
        # For who wants to know of what ends from now on: when that is, by Airbyte's clock, is not known yet.
        self._early: list[JobEvent] = []
        self._missed = False
        self._wake = Wakeup()
        self._closed = False

    def lacks(self, event: JobEvent) -> bool:
        """Whether it is an end that is wanted and was not told."""
        return self.wanted.matches(event) and not self.place.knows(event)

    def offer(self, event: JobEvent, *, looked_up: bool = False) -> None:
        """Take in an end, unless it is not wanted or known.

        :param looked_up: it comes from a look that was made for this follower; all of that is taken.
        """
        if not self.lacks(event):
            return
        if self.place.since is None and self.place.floor is None and not looked_up:
            self._early.append(event)
            del self._early[:-BUFFER]
            return
        if (len(self._held) >= BUFFER or self._bytes > BUFFER_BYTES) and not looked_up:
            # Not told: the look that is due will find it.
            self.miss()
            return
        self.place.tell(event)
        self._hold(event)

    def complete(self, moment: datetime) -> None:
        """All that ended before that moment was offered."""
        if self.late or (self.place.since is not None and moment <= self.place.since):
            return
        self.place.complete(moment)
        if self._held and isinstance(self._held[-1], Mark):
            self._bytes -= _weight(self._held.pop())
        self._hold(Mark(moment, self.place.floor))

    def miss(self) -> None:
        """Something may not have been offered: a look is to be made for this follower."""
        self.late = self._missed = True

    def seek(self) -> None:
        """A look is about to be made for this follower: it finds what was missed so far, and not what is from now."""
        self._missed = False

    def begin(self, served_at: datetime, elapsed: float) -> None:
        """A look made for this follower begins: only now it is known what time it is in Airbyte.

        :param served_at: the time there.
        :param elapsed: seconds since the follower joined.
        """
        if self.place.since is None and self.place.floor is None:
            self.place.floor = max(served_at - timedelta(seconds=elapsed), EARLIEST)

    def catch_up(self, served_at: datetime) -> None:
        """All that had ended when the look made for this follower began was offered."""
        early, self._early = self._early, []
        for event in early:
            self.offer(event, looked_up=True)
        self.late = False
        self.complete(served_at)
        # What was missed since then may have ended when its page had been read.
        self.late = self._missed

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def _hold(self, item: JobEvent | Mark) -> None:
        self._held.append(item)
        self._bytes += _weight(item)
        self._wake.set()

    @property
    def overdue(self) -> bool:
        """Whether a look is to be made for this follower now."""
        return self.late and not self._held

    async def receive(self) -> JobEvent | Mark:
        """The next end, or how far all were told.

        :raises anyio.EndOfStream: when the hub has ended and everything was delivered.
        """
        await anyio.lowlevel.checkpoint()
        while not self._held:
            if self._closed:
                raise anyio.EndOfStream
            if self.late:
                self.on_overdue()
            await self._wake.wait()
        item = self._held.popleft()
        self._bytes -= _weight(item)
        return item

    def __aiter__(self) -> Ends:
        return self

    async def __anext__(self) -> JobEvent:
        try:
            while not isinstance(item := await self.receive(), JobEvent):
                pass
        except anyio.EndOfStream:
            raise StopAsyncIteration from None
        return item


def _weight(item: JobEvent | Mark) -> int:
    return item.weight if isinstance(item, JobEvent) else 0

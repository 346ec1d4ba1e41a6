"""Signals: overdue, slow, stalled and failing, by the histories of connections and the progress of their jobs.

A signal is raised once and resolved once: the event log has its state, so a restart or another leader continues from
it. Only what contradicts a raised signal resolves it, never a clock that was set back.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import anyio
import anyio.lowlevel

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.json_values import is_uuid
from airbyte_events._utils.times import duration, format_time, utcnow
from airbyte_events.errors import LeaseLost, StoreError
from airbyte_events.events import EventFilter, JobEvent, JobRef, JobStatus, Signal, SignalKind
from airbyte_events.events.progress import Progress
from airbyte_events.listener.histories import ENOUGH, Histories, History, newest_states
from airbyte_events.listener.settings.connections import ConnectionSettings
from airbyte_events.store.base import EventStore
from airbyte_events.store.records import Lease

logger = logging.getLogger(__name__)

CHECK_SECONDS = 15.0
"""Seconds between two checks of all connections and active jobs of an instance."""

PROGRESS_SECONDS = 60.0
"""Seconds up to which an earlier response with the progress of jobs that may stall is as good."""

STALLED_AFTER = 1800.0
"""The default of ``stalled_after``, in seconds; more where a job usually takes longer."""

SLOW_FACTOR = 3.0
"""The default of ``slow_factor``."""

SLOW_LEAST = 300.0
"""Seconds beyond the usual duration that no job is slow for."""

FAILING = 3
"""The failures in a row after which a connection is failing."""

MOST_RAISED = 10_000
"""The most signals of an instance that are raised at the same time."""

_LONGEST_REASON = 300
_TOGETHER = 100
_YIELD_EVERY = 500
_DEFAULTS = ConnectionSettings()


class Signals:
    """Raises and resolves the signals of one instance, where this listener leads it.

    :param read_progress: :meth:`~airbyte_events.monitor.progress.ProgressReader.read` of the instance.
    :param settings: by UUID or name of the connection, in lower case.
    """

    def __init__(
        self,
        instance: str,
        read_progress: Callable[..., Awaitable[Mapping[int, Progress]]],
        store: EventStore,
        histories: Histories,
        settings: Mapping[str, ConnectionSettings],
    ) -> None:
        self.instance = instance
        self.raised: dict[JobRef, JobEvent] = {}
        """The raised signals; empty unless this listener leads the instance."""
        self.counts: dict[SignalKind, int] = dict.fromkeys(SignalKind, 0)
        """The signals raised here, by kind."""
        self._read = read_progress
        self._store = store
        self._histories = histories
        self._settings = settings
        self._progress: Mapping[int, Progress] = {}
        self._began = utcnow()

    async def run(self, lease: Lease) -> None:
        """Check until cancelled. Return if the lease turns out to be lost."""
        failures = 0
        await self._histories.loaded.wait()
        try:
            while True:
                try:
                    self.raised = await self._read_raised()
                    while True:
                        await self.check(lease)
                        failures = 0
                        await anyio.sleep(CHECK_SECONDS)
                except LeaseLost:
                    return
                except StoreError as exc:
                    failures += 1
                    logger.warning("could not store signals, retrying: instance=%s error=%s", self.instance, exc)
                    await anyio.sleep(pause(failures - 1, first=1))
        finally:
            self.raised = {}

    async def check(self, lease: Lease | None = None, now: datetime | None = None) -> None:
        """Check once: raise what is new, and resolve what has passed.

        :param now: by the clock, if not this moment.
        :raises StoreError: if an event could not be stored.
        """
        now = now or utcnow()
        active = [event for event in self._histories.active.values() if event.ref.instance == self.instance]
        await self._read_progress(active)
        found: dict[JobRef, JobEvent] = {}
        kept: set[JobRef] = set()
        for number, event in enumerate(active):
            if number % _YIELD_EVERY == 0:
                await anyio.lowlevel.checkpoint()
            for signal in self._of_job(event, now):
                raised = _event(self.instance, event.connection_id, signal, self._history(event), event.job_type)
                if (progress := self._progress.get(event.ref.job_id)) is not None:
                    raised = replace(raised, records=progress.records, bytes=progress.bytes)
                found[raised.ref] = raised
            kept |= {ref for ref in self._refs_of(event) if ref in self.raised and self._persists(ref, event)}
        for number, (connection_id, history) in enumerate(self._connections()):
            if number % _YIELD_EVERY == 0:
                await anyio.lowlevel.checkpoint()
            for signal in self._of_connection(connection_id, history, now):
                raised = _event(self.instance, connection_id, signal, history)
                found[raised.ref] = raised
        # Nothing is known that would resolve it.
        kept |= {
            ref
            for ref, each in self.raised.items()
            if each.signal is not None and each.signal.kind is SignalKind.FAILING and self._history(each) is None
        }
        gone = [self._resolved(each, now) for ref, each in self.raised.items() if ref not in found and ref not in kept]
        await self._append([*gone, *(each for ref, each in found.items() if ref not in self.raised)], lease)

    async def _append(self, events: list[JobEvent], lease: Lease | None) -> None:
        for start in range(0, len(events), _TOGETHER):
            some = events[start : start + _TOGETHER]
            raising = [event for event in some if not event.terminal][: MOST_RAISED - len(self.raised)]
            appended = await self._store.append([*raising, *(each for each in some if each.terminal)], lease=lease)
            for event in appended.states.values():
                if event.terminal:
                    self.raised.pop(event.ref, None)
                else:
                    self.raised[event.ref] = event
            for event in appended.events:
                if event.signal is not None:
                    self.counts[event.signal.kind] += event.signal.raised
                    state = "raised" if event.signal.raised else "resolved"
                    logger.log(
                        logging.WARNING if event.signal.raised else logging.INFO,
                        "signal %s: signal=%s connection=%s: %s",
                        *(state, event.signal.kind.value, event.connection_id, event.signal.message),
                        extra={"instance": self.instance},
                    )

    async def _read_raised(self) -> dict[JobRef, JobEvent]:
        wanted = EventFilter(instances=frozenset([self.instance]), terminal=False, jobs=False, signals=True)
        return {event.ref: event async for event in newest_states(self._store, wanted, MOST_RAISED)}

    async def _read_progress(self, active: Iterable[JobEvent]) -> None:
        """Request the progress of jobs that may stall, now and then; of those that seem to stall also their streams."""
        limits = {
            event.ref.job_id: limit
            for event in active
            if event.status is JobStatus.RUNNING and (limit := self._stalled_after(event)) is not None
        }
        found = await self._read(limits, max_age=PROGRESS_SECONDS) if limits else {}
        suspects = [job_id for job_id, each in found.items() if each.unchanged_seconds >= limits[job_id] / 2]
        if suspects:
            # What was read from the source and is not committed yet is progress, too.
            streams = await self._read(suspects[:_TOGETHER], streams=True, max_age=PROGRESS_SECONDS)
            found = {**found, **streams}
        self._progress = found

    def _of_job(self, event: JobEvent, now: datetime) -> Iterator[Signal]:
        job_id, progress = event.ref.job_id, self._progress.get(event.ref.job_id)
        limit = self._stalled_after(event)
        if limit is not None and progress is not None and progress.has_stalled(limit):
            since = progress.observed_at - timedelta(seconds=progress.unchanged_seconds)
            message = (
                f"job {job_id} has moved nothing for {duration(progress.unchanged_seconds)}"
                f" ({progress.text() or 'no records, no bytes'})"
            )
            yield Signal(kind=SignalKind.STALLED, raised=True, job_id=job_id, since=since, message=message)
        usual = self._histories.usual(self.instance, event.connection_id, event.job_type)
        factor = self._setting(event, "slow_factor", SLOW_FACTOR)
        if not factor or usual is None or usual.duration_seconds is None or event.started_at is None:
            return
        elapsed = (now - event.started_at).total_seconds()
        if elapsed > max(factor * usual.duration_seconds, usual.duration_seconds + SLOW_LEAST):
            message = f"job {job_id} has run for {duration(elapsed)}, usually {duration(usual.duration_seconds)}"
            yield Signal(kind=SignalKind.SLOW, raised=True, job_id=job_id, since=event.started_at, message=message)

    def _of_connection(self, connection_id: str, history: History | None, now: datetime) -> Iterator[Signal]:
        within = self._settings_of(connection_id, history).fresh_within
        since = self._began if history is None else history.succeeded_at or history.first_at or self._began
        if within:
            ref = JobRef(self.instance, Signal(kind=SignalKind.OVERDUE, raised=True).key(connection_id))
            if self._is_still_overdue(self.raised.get(ref), history) or (now - since).total_seconds() > within:
                message = f"no sync has succeeded since {format_time(since)}, and fresh_within is {duration(within)}"
                yield Signal(kind=SignalKind.OVERDUE, raised=True, since=since, message=message)
        if history is not None and history.failures >= FAILING and history.completed >= ENOUGH:
            error = history.error
            reason = "" if error is None else ": " + " ".join(str(error).split())[:_LONGEST_REASON]
            message = f"the last {history.failures} jobs have failed{reason}"
            yield Signal(kind=SignalKind.FAILING, raised=True, since=history.succeeded_at, message=message)

    @staticmethod
    def _is_still_overdue(raised: JobEvent | None, history: History | None) -> bool:
        if raised is None or raised.signal is None:
            return False
        succeeded_at = None if history is None else history.succeeded_at
        return succeeded_at is None or raised.signal.since is None or succeeded_at <= raised.signal.since

    def _persists(self, ref: JobRef, event: JobEvent) -> bool:
        """Return whether a raised signal of an active job still holds, though it is not found now."""
        signal = self.raised[ref].signal
        assert signal is not None  # noqa: S101 -- it is one of the raised
        if signal.kind is SignalKind.SLOW:
            return bool(self._setting(event, "slow_factor", SLOW_FACTOR))
        # Only progress resolves a stall: not that it could not be read, nor that this process has just begun to.
        progress = self._progress.get(event.ref.job_id)
        return event.status is JobStatus.RUNNING and (
            progress is None or _counts(progress) == _counts(self.raised[ref])
        )

    def _resolved(self, event: JobEvent, now: datetime) -> JobEvent:
        signal = event.signal
        assert signal is not None  # noqa: S101 -- it is one of the raised
        message = f"no longer: {signal.message.removeprefix('no longer: ')}"
        resolved = replace(signal, raised=False, message=message)
        return replace(event, status=JobStatus.SUCCEEDED, observed_at=now, signal=resolved, cursor=None)

    def _connections(self) -> list[tuple[str, History | None]]:
        """Return the instance's connections: those with a history, and those in the settings by UUID."""
        known = {
            id_: each for (instance, id_), each in self._histories.connections.items() if instance == self.instance
        }
        return [*known.items(), *((id_, None) for id_ in self._settings if id_ not in known and is_uuid(id_))]

    def _history(self, event: JobEvent) -> History | None:
        return self._histories.of(self.instance, event.connection_id)

    def _refs_of(self, event: JobEvent) -> list[JobRef]:
        kinds = (SignalKind.STALLED, SignalKind.SLOW)
        signals = [Signal(kind=kind, raised=True, job_id=event.ref.job_id) for kind in kinds]
        return [JobRef(self.instance, signal.key(event.connection_id)) for signal in signals]

    def _settings_of(self, connection_id: str | None, history: History | None) -> ConnectionSettings:
        if not self._settings:
            return _DEFAULTS
        name = "" if history is None else history.names.get("connection", "")
        return self._settings.get((connection_id or "").lower()) or self._settings.get(name.lower()) or _DEFAULTS

    def _setting(self, event: JobEvent, name: str, default: float) -> float | None:
        """Return a setting; its default where the history is long enough."""
        history = self._history(event)
        value: float | None = getattr(self._settings_of(event.connection_id, history), name)
        if value is not None:
            return value
        return default if history is not None and history.completed >= ENOUGH else None

    def _stalled_after(self, event: JobEvent) -> float | None:
        """Return after how many seconds without progress a job has stalled; None: never."""
        usual = self._histories.usual(self.instance, event.connection_id, event.job_type)
        default = max(STALLED_AFTER, (usual and usual.duration_seconds) or 0.0)
        return self._setting(event, "stalled_after", default) or None


def _event(
    instance: str, connection_id: str | None, signal: Signal, history: History | None, job_type: str | None = None
) -> JobEvent:
    return JobEvent.of_signal(
        signal,
        instance=instance,
        connection_id=connection_id,
        observed_at=utcnow(),
        job_type=job_type,
        workspace_id=None if history is None else history.workspace_id,
        names={} if history is None else dict(history.names),
        url=None if history is None else history.url,
    )


def _counts(counted: Progress | JobEvent) -> tuple[int, int]:
    return counted.records or 0, counted.bytes or 0

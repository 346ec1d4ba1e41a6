"""Filters of events."""

from __future__ import annotations

from dataclasses import dataclass

from airbyte_events.events.event import JobEvent, JobRef
from airbyte_events.events.status import JobStatus, reported_job_type


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """A filter of events. Every given criterion must match; within one, any value does.

    :param connection_ids: Airbyte connections (UUIDs, in any case).
    :param job_types: ``sync``, ``reset``, ``clear``, ``refresh``. Airbyte reports a clear as ``reset``: either name
        means both. Stores ignore this criterion; their readers apply it.
    :param terminal: only terminal (True) or only active (False) states.
    :param jobs: states of jobs.
    :param signals: signals, which only match by instance and connection; without ``jobs`` also by ``terminal``, which a
        resolved one is.
    """

    instances: frozenset[str] = frozenset()
    connection_ids: frozenset[str] = frozenset()
    job_ids: frozenset[int] = frozenset()
    job_types: frozenset[str] = frozenset()
    statuses: frozenset[JobStatus] = frozenset()
    terminal: bool | None = None
    jobs: bool = True
    signals: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "connection_ids", frozenset(map(str.lower, self.connection_ids)))
        object.__setattr__(self, "job_types", frozenset(map(reported_job_type, self.job_types)))

    @property
    def only_job(self) -> JobRef | None:
        """The only job that the filter can match, if there is one."""
        if len(self.instances) == 1 and len(self.job_ids) == 1:
            return JobRef(next(iter(self.instances)), next(iter(self.job_ids)))
        return None

    @property
    def _of_signals(self) -> EventFilter:
        """The criteria that apply to signals."""
        terminal = None if self.jobs else self.terminal
        return EventFilter(instances=self.instances, connection_ids=self.connection_ids, terminal=terminal)

    def branches(self) -> list[tuple[str, dict[str, frozenset[int] | frozenset[str]]]]:
        """Return the criteria for a database query: an event matches one of these.

        :return: the comparison of ``job_id`` with 0 and, by field of an event, the values that match.
        """
        of_jobs = [(">", self._choices())] if self.jobs else []
        return of_jobs + ([("<", self._of_signals._choices())] if self.signals else [])

    def _choices(self) -> dict[str, frozenset[int] | frozenset[str]]:
        statuses = frozenset(status.value for status in self.statuses)
        if self.terminal is not None:
            kept = frozenset(status.value for status in JobStatus if status.terminal is self.terminal)
            # Contradictory criteria match a status that no job has.
            statuses = (statuses & kept if statuses else kept) or frozenset([""])
        fields: dict[str, frozenset[int] | frozenset[str]] = {
            "instance": self.instances,
            "job_id": self.job_ids,
            "connection_id": self.connection_ids,
            "status": statuses,
        }
        return {field: values for field, values in fields.items() if values}

    def matches(self, event: JobEvent) -> bool:
        if event.signal is not None:
            return self.signals and self._of_signals._matches(event)
        return self.jobs and self._matches(event)

    def _matches(self, event: JobEvent) -> bool:
        return (
            (not self.instances or event.ref.instance in self.instances)
            and (not self.job_ids or event.ref.job_id in self.job_ids)
            and (not self.connection_ids or (event.connection_id or "").lower() in self.connection_ids)
            and (not self.job_types or reported_job_type(event.job_type or "") in self.job_types)
            and (not self.statuses or event.status in self.statuses)
            and (self.terminal is None or event.terminal is self.terminal)
        )


EVERYTHING = EventFilter()
"""All states of jobs."""

WHOLE_LOG = EventFilter(signals=True)
"""All events of a log."""

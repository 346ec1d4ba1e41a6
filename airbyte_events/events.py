"""The values: what a job is called, what state it can be in, and the event that tells of a change."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from airbyte_events._utils.times import LONGEST_SECONDS, format_time, parse_time


class JobStatus(StrEnum):
    """The state of an Airbyte job, by the names of Airbyte's public API."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    INCOMPLETE = "incomplete"
    """An attempt failed and another may follow."""
    UNKNOWN = "unknown"
    """A name that this table does not have."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return not FOLLOWED_BY[self]


_ANY = frozenset(JobStatus)

FOLLOWED_BY: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: _ANY,
    JobStatus.QUEUED: _ANY,
    JobStatus.RUNNING: _ANY,
    JobStatus.INCOMPLETE: _ANY,
    JobStatus.UNKNOWN: _ANY,
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}
"""The one table of what may follow what. A status that nothing follows is terminal; every other one is active.

Active jobs move freely (a running job is ``pending`` again when Airbyte restarts its workflow, an incomplete one can
go straight to ``succeeded``), and a status that this version has never heard of is active.
"""


def parse_status(name: object) -> JobStatus:
    """The status of that name; :attr:`JobStatus.UNKNOWN` for any other value."""
    try:
        return JobStatus(str(name))
    except ValueError:
        return JobStatus.UNKNOWN


PUSHED_JOB_TYPES = frozenset({"sync"})
"""The job types whose end Airbyte announces by webhook; clear, reset and refresh jobs end in silence."""


def same_job_type(one: str | None, other: str | None) -> bool:
    """Return whether two names mean the same type of job.

    An unknown type (None) is the same as no other.
    """
    return one is not None and other is not None and reported_job_type(one) == reported_job_type(other)


def reported_job_type(name: str) -> str:
    """Return what Airbyte calls a job that was started under this name.

    Airbyte stores a job that is started as ``clear`` as a reset and reports it as ``reset``
    (``DefaultJobCreator`` writes ``reset_connection``).
    """
    return "reset" if name == "clear" else name


class Origin(StrEnum):
    """How a state was learnt. In every case it is the API that said it."""

    WEBHOOK = "webhook"
    """Asked because a webhook came."""
    POLL = "poll"
    """Found by a look at the instance."""
    SUBMIT = "submit"
    """Asked because somebody began to wait."""
    UNKNOWN = "unknown"
    """A name that this table does not have: what a newer version wrote."""


def parse_origin(name: object) -> Origin:
    """Return the origin of that name; :attr:`Origin.UNKNOWN` for any other value."""
    try:
        return Origin(str(name))
    except ValueError:
        return Origin.UNKNOWN


class JobRef(NamedTuple):
    """A job's name: job ids are unique within one Airbyte instance only."""

    instance: str
    job_id: int

    def __str__(self) -> str:
        return f"{self.instance}/{self.job_id}"


class Cursor(NamedTuple):
    """A place in an event log, written ``<epoch>-<sequence>``.

    :param epoch: the log's identity, made with the log, so that a replaced log can't be read with a stale cursor.
    :param sequence: of the last event that was seen; 0 stands before the first.
    """

    epoch: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """:raises ValueError: if the text is not a cursor."""
        match = re.fullmatch(r"([0-9a-f]{1,32})-(0|[1-9][0-9]{0,17})", text)
        if match is None:
            raise ValueError("a cursor is written <epoch>-<sequence>, for example 5f3a9c1e-42")
        return cls(match[1], int(match[2]))


NAMED = ("workspace", "connection", "source", "destination")
"""What an event may have a name of."""

TOLD_BY_WEBHOOKS = (
    "workspace_id",
    "finished_at",
    "records",
    "bytes",
    "duration_seconds",
    "error",
    "names",
    "url",
)
"""The fields of an event that a webhook may bring where the API does not. When a job was created is none of them: that
tells it from another job of its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why a job failed, in Airbyte's words. Only a webhook brings it; the API has no failure reason."""

    message: str | None
    type: str | None = None
    origin: str | None = None

    def __str__(self) -> str:
        where = ", ".join(
            f"{name} {value}" for name, value in (("type", self.type), ("origin", self.origin)) if value is not None
        )
        return f"{self.message or 'no message'}" + (f" ({where})" if where else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """A job has this state now: an event when it is new, the job's state when it is the latest one.

    Times are aware and in UTC; None is unknown throughout.

    :param ref: which job.
    :param status: its state.
    :param observed_at: when this process learnt it.
    :param origin: how it was learnt.
    :param connection_id: the Airbyte connection (UUID).
    :param workspace_id: the Airbyte workspace (UUID); the API does not tell, a webhook does.
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``.
    :param previous_status: of the event before, in this log.
    :param started_at: when the job was created.
    :param finished_at: when it reached a terminal status.
    :param records: committed, as Airbyte's API counts them, by which Airbyte bills.
    :param bytes: the same.
    :param duration_seconds: from start to end.
    :param error: why it failed.
    :param names: of workspace, connection, source and destination.
    :param url: the connection's page in Airbyte.
    :param unconfirmed: the fields that a webhook alone brought: the API does not contradict them, nor does it say
        them. They decide nothing.
    :param cursor: this event's place in the log, once it is stored.
    """

    ref: JobRef
    status: JobStatus
    observed_at: datetime
    origin: Origin
    connection_id: str | None = None
    workspace_id: str | None = None
    job_type: str | None = None
    previous_status: JobStatus | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    records: int | None = None
    bytes: int | None = None
    duration_seconds: float | None = None
    error: JobError | None = None
    names: dict[str, str] = field(default_factory=dict)
    url: str | None = None
    unconfirmed: frozenset[str] = frozenset()
    cursor: Cursor | None = None

    @property
    def terminal(self) -> bool:
        return self.status.terminal

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes: what others wrote can be long."""
        error = 0 if self.error is None else len(self.error.message or "")
        return 1_000 + error + len(self.url or "") + sum(map(len, self.names.values()))

    def data(self) -> dict[str, Any]:
        """The event as plain JSON values: the same object in feed, long-poll, watches, jobs and XCom."""
        data: dict[str, Any] = {
            "instance": self.ref.instance,
            "job_id": self.ref.job_id,
            "connection_id": self.connection_id,
            "workspace_id": self.workspace_id,
            "job_type": self.job_type,
            "status": self.status.value,
            "previous_status": self.previous_status.value if self.previous_status else None,
            "started_at": format_time(self.started_at),
            "finished_at": format_time(self.finished_at),
            "observed_at": format_time(self.observed_at),
            "records": self.records,
            "bytes": self.bytes,
            "duration_seconds": self.duration_seconds,
            "origin": self.origin.value,
            "error": None
            if self.error is None
            else {"message": self.error.message, "type": self.error.type, "origin": self.error.origin},
        }
        if self.names:
            data["names"] = dict(self.names)
        if self.url:
            data["url"] = self.url
        if self.unconfirmed:
            data["unconfirmed"] = sorted(self.unconfirmed)
        return data

    @classmethod
    def from_data(cls, data: object, cursor: Cursor | None = None) -> JobEvent:
        """Read the event that :meth:`data` wrote, in this version, an older or a newer one.

        Fields that this version does not have are ignored, names that it does not have are *unknown*, and so is an
        optional value of another type or out of range.

        :raises ValueError: if the object is no event's: it lacks its job, its status or its time.
        """
        if not isinstance(data, dict):
            raise ValueError("not a job event: no object")
        instance, job_id, status = _text(data.get("instance")), _amount(data.get("job_id"), int), data.get("status")
        observed_at = _moment(data.get("observed_at"))
        if not instance or not job_id or not isinstance(status, str) or observed_at is None:
            raise ValueError("not a job event: it has no usable instance, job_id, status or observed_at")
        previous = data.get("previous_status")
        error, names, unconfirmed = data.get("error"), data.get("names"), data.get("unconfirmed")
        return cls(
            ref=JobRef(instance, job_id),
            status=parse_status(status),
            observed_at=observed_at,
            origin=parse_origin(data.get("origin")),
            connection_id=_text(data.get("connection_id")),
            workspace_id=_text(data.get("workspace_id")),
            job_type=_text(data.get("job_type")),
            previous_status=None if previous is None else parse_status(previous),
            started_at=_moment(data.get("started_at")),
            finished_at=_moment(data.get("finished_at")),
            records=_amount(data.get("records"), int),
            bytes=_amount(data.get("bytes"), int),
            duration_seconds=_duration(data.get("duration_seconds")),
            error=JobError(**{name: _text(error.get(name)) for name in ("message", "type", "origin")})
            if isinstance(error, dict)
            else None,
            names={noun: text for noun in NAMED if (text := _text(names.get(noun))) is not None}
            if isinstance(names, dict)
            else {},
            url=_text(data.get("url")),
            unconfirmed=frozenset(name for name in TOLD_BY_WEBHOOKS if name in unconfirmed)
            if isinstance(unconfirmed, list)
            else frozenset(),
            cursor=cursor,
        )

    def envelope(self, source: str) -> dict[str, Any]:
        """The event as a CloudEvents 1.0 JSON object (https://github.com/cloudevents/spec).

        :param source: the Airbyte instance's URL.
        """
        if self.cursor is None:
            raise ValueError("an event has an envelope once it is stored")
        return {
            "specversion": "1.0",
            "id": str(self.cursor),
            "type": f"io.airbyte.job.{self.status.value}",
            "source": source,
            "subject": f"jobs/{self.ref.job_id}",
            "time": format_time(self.finished_at or self.observed_at),
            # The sequence extension wants text that sorts.
            "sequence": f"{self.cursor.sequence:018d}",
            "datacontenttype": "application/json",
            "data": self.data(),
        }

    @classmethod
    def from_envelope(cls, envelope: dict[str, Any]) -> JobEvent:
        """:raises ValueError: if the object is not an event's envelope."""
        data = envelope.get("data")
        if not isinstance(data, dict) or not isinstance(envelope.get("id"), str):
            raise ValueError("not an event's envelope: no data or no id")
        return cls.from_data(data, Cursor.parse(envelope["id"]))


def read_event(data: object, cursor: Cursor | None = None) -> JobEvent | None:
    """Read a stored or received event, whatever version wrote it; None for one that can't be read.

    :param data: what :meth:`JobEvent.data` gave, or its JSON text.
    """
    try:
        return JobEvent.from_data(json.loads(data) if isinstance(data, (str, bytes)) else data, cursor)
    except (ValueError, RecursionError):
        return None


# An event comes over the network, too: what is of another type would fail far from here.


def _text(value: object) -> str | None:
    if not isinstance(value, str) or "\0" in value:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return None
    return value


def _amount(value: object, *types: type) -> Any:
    return value if type(value) in types and 0 <= value < 2**63 else None  # type: ignore[operator]


def _duration(value: object) -> float | None:
    seconds = _amount(value, int, float)
    return seconds if seconds is not None and seconds <= LONGEST_SECONDS else None


def _moment(value: object) -> datetime | None:
    try:
        return parse_time(value)
    except ValueError:
        return None


START_PRECISION = timedelta(seconds=1)
"""By how much two reports of one job's start can differ: Airbyte writes whole seconds, cut or rounded. A format without
seconds occurs where they are zero (Java's ``OffsetDateTime.toString``), so no more than that is lost."""


class _Identified(Protocol):
    """A job's state, as an event or as the API returned it."""

    @property
    def connection_id(self) -> str | None: ...

    @property
    def started_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a job from another one that had its number before, or has it in another Airbyte. None is unknown.

    Airbyte's database gives a number again once it has been restored or made anew.

    :param connection_id: the Airbyte connection (UUID, in any case).
    :param started_at: when the job was created.
    """

    connection_id: str | None = None
    started_at: datetime | None = None

    def fits(self, state: _Identified) -> bool:
        """Return whether the state of a job of that number can be this job's; what is unknown decides nothing."""
        ids = {each.lower() for each in (state.connection_id, self.connection_id) if each is not None}
        return len(ids) < 2 and not _differ(state.started_at, self.started_at)


ANY_JOB = Identity()


def same_job(one: JobEvent, other: JobEvent) -> bool:
    """Return whether two states of one number can be the same job's."""
    return Identity(one.connection_id, one.started_at).fits(other)


def _differ(one: datetime | None, other: datetime | None) -> bool:
    """Whether these can't be two reports of one job's start."""
    return one is not None and other is not None and abs(one - other) > START_PRECISION


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events a subscriber gets. Every criterion that is given must hold; within one, any value does.

    :param instances: names of Airbyte instances.
    :param connection_ids: Airbyte connections (UUIDs, in any case).
    :param job_ids: job ids.
    :param job_types: ``sync``, ``reset``, ``clear``, ``refresh``. Airbyte reports a clear as ``reset``: either name
        means both. A store leaves this criterion to its reader.
    :param statuses: job states.
    :param terminal: only terminal (True) or only active (False) states.
    """

    instances: frozenset[str] = frozenset()
    connection_ids: frozenset[str] = frozenset()
    job_ids: frozenset[int] = frozenset()
    job_types: frozenset[str] = frozenset()
    statuses: frozenset[JobStatus] = frozenset()
    terminal: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "connection_ids", frozenset(map(str.lower, self.connection_ids)))
        object.__setattr__(self, "job_types", frozenset(map(reported_job_type, self.job_types)))

    @property
    def only_job(self) -> JobRef | None:
        """The one job that the filter can match, if it is so narrow."""
        if len(self.instances) == 1 and len(self.job_ids) == 1:
            return JobRef(next(iter(self.instances)), next(iter(self.job_ids)))
        return None

    def choices(self) -> dict[str, frozenset[int] | frozenset[str]]:
        """The fields of an event that have to have one of some values, with these, as a database is asked for them."""
        statuses = frozenset(status.value for status in self.statuses)
        if self.terminal is not None:
            kept = frozenset(status.value for status in JobStatus if status.terminal is self.terminal)
            # Criteria that contradict each other leave a status that no job has.
            statuses = (statuses & kept if statuses else kept) or frozenset([""])
        fields: dict[str, frozenset[int] | frozenset[str]] = {
            "instance": self.instances,
            "job_id": self.job_ids,
            "connection_id": self.connection_ids,
            "status": statuses,
        }
        return {field: values for field, values in fields.items() if values}

    def matches(self, event: JobEvent) -> bool:
        return (
            (not self.instances or event.ref.instance in self.instances)
            and (not self.job_ids or event.ref.job_id in self.job_ids)
            and (not self.connection_ids or (event.connection_id or "").lower() in self.connection_ids)
            and (not self.job_types or reported_job_type(event.job_type or "") in self.job_types)
            and (not self.statuses or event.status in self.statuses)
            and (self.terminal is None or event.terminal is self.terminal)
        )


EVERYTHING = EventFilter()

"""Events, with the job, its state and its attributes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from airbyte_events._utils.json_values import instant, mapping, seconds, web_page, whole
from airbyte_events._utils.times import format_time
from airbyte_events.events.receipt import TaskReceipt, read_receipts
from airbyte_events.events.signal import Signal
from airbyte_events.events.status import JobStatus, Origin, parse_origin, parse_status


class JobRef(NamedTuple):
    """A reference to a job. Its id is unique within one Airbyte instance only."""

    instance: str
    job_id: int

    def __str__(self) -> str:
        return f"{self.instance}/{self.job_id}"


class Cursor(NamedTuple):
    """A position in an event log, written ``<epoch>-<sequence>``.

    :param epoch: the log's identity, created with it, so that a replaced log can't be read with a stale cursor.
    :param sequence: of the last event that was read; 0 is before the first.
    """

    epoch: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read a cursor.

        :raises ValueError: if the text is not a cursor.
        """
        match = re.fullmatch(r"([0-9a-f]{1,32})-(0|[1-9][0-9]{0,17})", text)
        if match is None:
            raise ValueError("a cursor is written <epoch>-<sequence>, for example 5f3a9c1e-42")
        return cls(match[1], int(match[2]))


NAMED = ("workspace", "connection", "source", "destination")
"""The keys of an event's names."""

WEBHOOK_FIELDS = ("workspace_id", "finished_at", "records", "bytes", "duration_seconds", "error", "names", "url")
"""The fields of an event that a webhook may fill if the API does not. Not the start time, which identifies a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why a job failed, in Airbyte's words: from a webhook or Airbyte's internal API. The public API has no reason.

    :param retryable: whether Airbyte knows that a retry may succeed; None: not known. Webhooks have no such value.
    :param stream: the stream that failed, ``namespace.name``; only the internal API has it.
    """

    message: str | None
    type: str | None = None
    origin: str | None = None
    retryable: bool | None = None
    stream: str | None = None

    def __str__(self) -> str:
        where = ", ".join(
            f"{name} {value}"
            for name, value in (("type", self.type), ("origin", self.origin), ("stream", self.stream))
            if value is not None
        )
        return f"{self.message or 'no message'}" + (f" ({where})" if where else "")

    def data(self) -> dict[str, Any]:
        """Return JSON values: ``retryable`` and ``stream`` only where they are known."""
        data: dict[str, Any] = {"message": self.message, "type": self.type, "origin": self.origin}
        known = {"retryable": self.retryable, "stream": self.stream}
        return data | {name: value for name, value in known.items() if value is not None}

    @classmethod
    def from_data(cls, data: object) -> JobError | None:
        """Read an error from :meth:`data`; None for another value."""
        if not isinstance(data, dict):
            return None
        retryable = data.get("retryable")
        texts = {name: _text(data.get(name)) for name in ("message", "type", "origin", "stream")}
        return cls(**texts, retryable=retryable if isinstance(retryable, bool) else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """A state of a job: an event in the log, and the job's state while it is the latest one.

    Times are aware and in UTC; None is unknown throughout.

    :param observed_at: when this process received it from the API.
    :param connection_id: the Airbyte connection (UUID).
    :param workspace_id: the Airbyte workspace (UUID); only a webhook has it.
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``.
    :param previous_status: of the event before, in this log.
    :param records: committed, as Airbyte's API counts them, by which Airbyte bills.
    :param bytes: the same.
    :param duration_seconds: from start to end.
    :param attempts: how often Airbyte tried, of a failed job; only its internal API has it.
    :param names: of workspace, connection, source and destination.
    :param url: the connection's page in Airbyte.
    :param task_url: the page of a task that waits for the job, as the first subscriber gave it.
    :param receipts: the tasks that received the completion; they are reported after it.
    :param unconfirmed: the fields that only a webhook has reported. Nothing is decided by them.
    :param cursor: this event's position in the log, once it is stored.
    :param signal: what a listener concludes, if this is no state of a job; see :meth:`of_signal`.
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
    attempts: int | None = None
    names: dict[str, str] = field(default_factory=dict)
    url: str | None = None
    task_url: str | None = None
    receipts: tuple[TaskReceipt, ...] = ()
    unconfirmed: frozenset[str] = frozenset()
    cursor: Cursor | None = None
    signal: Signal | None = None

    @classmethod
    def of_signal(cls, signal: Signal, *, instance: str, connection_id: str | None, **fields: Any) -> JobEvent:
        """Return the event of a signal. Its reference is that of no job, its status is active until it is resolved.

        :param fields: ``observed_at``, and any of ``workspace_id``, ``job_type``, ``names``, ``url``.
        """
        return cls(
            ref=JobRef(instance, signal.key(connection_id)),
            status=JobStatus.RUNNING if signal.raised else JobStatus.SUCCEEDED,
            origin=Origin.POLL,
            connection_id=connection_id,
            signal=signal,
            **fields,
        )

    @property
    def terminal(self) -> bool:
        return self.status.terminal

    @property
    def sequence(self) -> int:
        """The sequence in the log; 0 if it has none."""
        return 0 if self.cursor is None else self.cursor.sequence

    @property
    def weight(self) -> int:
        """The approximate size in memory in bytes; names and reasons can be long."""
        error = 0 if self.error is None else len(self.error.message or "")
        receipts = sum(200 + len(receipt.task_url or "") for receipt in self.receipts)
        links = len(self.url or "") + len(self.task_url or "")
        return 1_000 + error + links + receipts + sum(map(len, self.names.values()))

    def data(self) -> dict[str, Any]:
        """Return the event as JSON values: the same object in feed, long-poll, watches, jobs and XCom."""
        if self.signal is not None:
            return self._signal_data(self.signal)
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
            "error": None if self.error is None else self.error.data(),
        }
        if self.attempts is not None:
            data["attempts"] = self.attempts
        if self.names:
            data["names"] = dict(self.names)
        if self.url:
            data["url"] = self.url
        if self.task_url:
            data["task_url"] = self.task_url
        if self.receipts:
            data["receipts"] = [receipt.data() for receipt in self.receipts]
        if self.unconfirmed:
            data["unconfirmed"] = sorted(self.unconfirmed)
        return data

    def _signal_data(self, signal: Signal) -> dict[str, Any]:
        return {
            "instance": self.ref.instance,
            "connection_id": self.connection_id,
            "workspace_id": self.workspace_id,
            "job_type": self.job_type,
            "observed_at": format_time(self.observed_at),
            "records": self.records,
            "bytes": self.bytes,
            **signal.data(),
            **({"names": dict(self.names)} if self.names else {}),
            **({"url": self.url} if self.url else {}),
        }

    @classmethod
    def from_data(cls, data: object, cursor: Cursor | None = None) -> JobEvent:
        """Read an event from :meth:`data`, of this version, an older or a newer one.

        Unknown fields are ignored. Unknown names, and optional values of another type or out of range, are *unknown*.

        :raises ValueError: if the object has no usable job, status or time.
        """
        if not isinstance(data, dict):
            raise ValueError("not a job event: no object")
        instance, observed_at = _text(data.get("instance")), instant(data.get("observed_at"))
        if not instance or observed_at is None:
            raise ValueError("not a job event: it has no usable instance or observed_at")
        common: dict[str, Any] = {
            "observed_at": observed_at,
            "connection_id": _text(data.get("connection_id")),
            "workspace_id": _text(data.get("workspace_id")),
            "job_type": _text(data.get("job_type")),
            "records": whole(data.get("records")),
            "bytes": whole(data.get("bytes")),
            "names": _names(data.get("names")),
            "url": _text(data.get("url")),
            "cursor": cursor,
        }
        if "signal" in data:
            return cls.of_signal(Signal.read(data), instance=instance, **common)
        job_id, status = whole(data.get("job_id"), 1), data.get("status")
        if not job_id or not isinstance(status, str):
            raise ValueError("not a job event: it has no usable job_id or status")
        previous, unconfirmed = data.get("previous_status"), data.get("unconfirmed")
        return cls(
            ref=JobRef(instance, job_id),
            status=parse_status(status),
            origin=parse_origin(data.get("origin")),
            previous_status=None if previous is None else parse_status(previous),
            started_at=instant(data.get("started_at")),
            finished_at=instant(data.get("finished_at")),
            duration_seconds=seconds(data.get("duration_seconds")),
            error=JobError.from_data(data.get("error")),
            attempts=whole(data.get("attempts")),
            task_url=web_page(data.get("task_url")),
            receipts=read_receipts(data.get("receipts")),
            unconfirmed=frozenset(name for name in WEBHOOK_FIELDS if name in unconfirmed)
            if isinstance(unconfirmed, list)
            else frozenset(),
            **common,
        )

    def envelope(self, source: str) -> dict[str, Any]:
        """Return the event as a CloudEvents 1.0 JSON object (https://github.com/cloudevents/spec).

        :param source: the Airbyte instance's URL.
        """
        if self.cursor is None:
            raise ValueError("an event has an envelope once it is stored")
        signal = self.signal
        job_id = self.ref.job_id if signal is None else signal.job_id
        return {
            "specversion": "1.0",
            "id": str(self.cursor),
            "type": f"io.airbyte.job.{self.status.value}" if signal is None else signal.type,
            "source": source,
            "subject": f"connections/{self.connection_id}" if job_id is None else f"jobs/{job_id}",
            "time": format_time(self.finished_at or self.observed_at),
            # The sequence extension wants text that sorts.
            "sequence": f"{self.cursor.sequence:018d}",
            "datacontenttype": "application/json",
            "data": self.data(),
        }

    @classmethod
    def from_envelope(cls, envelope: dict[str, Any]) -> JobEvent:
        """Read an event from :meth:`envelope`.

        :raises ValueError: if the object is not an event's envelope.
        """
        data = envelope.get("data")
        if not isinstance(data, dict) or not isinstance(envelope.get("id"), str):
            raise ValueError("not an event's envelope: no data or no id")
        return cls.from_data(data, Cursor.parse(envelope["id"]))


def read_event(data: object, cursor: Cursor | None = None) -> JobEvent | None:
    """Read a stored or received event of any version; None if it is unreadable.

    :param data: from :meth:`JobEvent.data`, or its JSON text.
    """
    try:
        return JobEvent.from_data(json.loads(data) if isinstance(data, (str, bytes)) else data, cursor)
    except (ValueError, RecursionError):
        return None


def _names(value: object) -> dict[str, str]:
    names = mapping(value)
    return {noun: text for noun in NAMED if (text := _text(names.get(noun))) is not None}


def _text(value: object) -> str | None:
    if not isinstance(value, str) or "\0" in value:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return None
    return value

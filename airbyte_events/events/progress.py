"""The progress of an active job, and what is usual for its connection. It is read on demand and never stored."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol, Self

from airbyte_events._utils import json_values
from airbyte_events._utils.times import format_time
from airbyte_events.events.status import JobStatus, parse_status

MOST_STREAMS = 1_000
LONGEST_NAME = 200

USUAL_OF = 20
"""The number of successes whose medians are usual."""

STREAMS_SHARE = 0.2
"""The share of a time without progress for which the streams must have been the same. They are requested from half of
that time on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamProgress:
    """A stream of a running job. None is unknown.

    :param records: read from the source so far.
    :param bytes: likewise.
    """

    name: str
    namespace: str | None = None
    records: int | None = None
    bytes: int | None = None

    def data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, data: object) -> Self | None:
        """Read :meth:`data`; None if it is no stream."""
        fields = json_values.mapping(data)
        name = json_values.text(fields.get("name"), LONGEST_NAME)
        if name is None:
            return None
        return cls(
            name=name,
            namespace=json_values.text(fields.get("namespace"), LONGEST_NAME),
            records=json_values.whole(fields.get("records")),
            bytes=json_values.whole(fields.get("bytes")),
        )


class Amount(Protocol):
    """What a completed job took: of a job, or of its event."""

    @property
    def duration_seconds(self) -> float | None: ...
    @property
    def records(self) -> int | None: ...
    @property
    def bytes(self) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The medians of a connection's last successes. None is unknown."""

    jobs: int
    duration_seconds: float | None = None
    records: int | None = None
    bytes: int | None = None

    @classmethod
    def of(cls, successes: Iterable[Amount]) -> Self | None:
        """Return the medians; None if there is no success."""
        found = list(successes)
        if not found:
            return None

        def median(name: str) -> float | None:
            known = [value for each in found if (value := getattr(each, name)) is not None]
            return statistics.median(known) if known else None

        records, size = median("records"), median("bytes")
        return cls(
            jobs=len(found),
            duration_seconds=median("duration_seconds"),
            records=None if records is None else round(records),
            bytes=None if size is None else round(size),
        )

    def data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, data: object) -> Self | None:
        """Read :meth:`data`; None if there is none."""
        fields = json_values.mapping(data)
        if (jobs := json_values.whole(fields.get("jobs"), least=1)) is None:
            return None
        return cls(
            jobs=jobs,
            duration_seconds=json_values.seconds(fields.get("duration_seconds")),
            records=json_values.whole(fields.get("records")),
            bytes=json_values.whole(fields.get("bytes")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an active job is. None is unknown.

    :param records: committed so far, as Airbyte's public API reports them; read from the source where it does not.
    :param bytes: likewise.
    :param streams: by Airbyte's internal API, if it responds.
    :param observed_at: when Airbyte reported this.
    :param unchanged_seconds: for how long, up to ``observed_at``, the status, the records, the bytes and the streams
        have been the same, as far as somebody has asked; 0 unless the job runs.
    :param streams_unchanged_seconds: for how long, up to the last response with them, the streams have been the same; 0
        before the second one. None: Airbyte does not report them, or this listener does not say.
    """

    job_id: int
    status: JobStatus
    observed_at: datetime
    started_at: datetime | None = None
    connection_id: str | None = None
    records: int | None = None
    bytes: int | None = None
    streams: tuple[StreamProgress, ...] | None = None
    unchanged_seconds: float = 0.0
    streams_unchanged_seconds: float | None = None
    usual: Usual | None = None

    def data(self) -> dict[str, Any]:
        return {
            "job_id": self.job_id,
            "connection_id": self.connection_id,
            "status": self.status.value,
            "started_at": format_time(self.started_at),
            "observed_at": format_time(self.observed_at),
            "records": self.records,
            "bytes": self.bytes,
            "streams": None if self.streams is None else [each.data() for each in self.streams],
            "unchanged_seconds": round(self.unchanged_seconds, 1),
            "streams_unchanged_seconds": None
            if self.streams_unchanged_seconds is None
            else round(self.streams_unchanged_seconds, 1),
            "usual": None if self.usual is None else self.usual.data(),
        }

    @classmethod
    def read(cls, data: object) -> Self | None:
        """Read :meth:`data`; None if it is no progress."""
        fields = json_values.mapping(data)
        job_id, status = json_values.job_id(fields.get("job_id")), json_values.text(fields.get("status"))
        observed_at, streams = json_values.instant(fields.get("observed_at")), fields.get("streams")
        if job_id is None or status is None or observed_at is None:
            return None
        parsed = [StreamProgress.read(each) for each in streams[:MOST_STREAMS]] if isinstance(streams, list) else None
        return cls(
            job_id=job_id,
            status=parse_status(status),
            observed_at=observed_at,
            started_at=json_values.instant(fields.get("started_at")),
            connection_id=json_values.text(fields.get("connection_id"), LONGEST_NAME),
            records=json_values.whole(fields.get("records")),
            bytes=json_values.whole(fields.get("bytes")),
            streams=None if parsed is None else tuple(each for each in parsed if each is not None),
            unchanged_seconds=json_values.seconds(fields.get("unchanged_seconds")) or 0.0,
            streams_unchanged_seconds=json_values.seconds(fields.get("streams_unchanged_seconds")),
            usual=Usual.read(fields.get("usual")),
        )

    def has_stalled(self, after: float) -> bool:
        """Return whether the job has stalled: nothing of it has moved for so many seconds.

        What was read from the source and is not committed yet is progress, too. Streams are requested one job at a
        time, within a budget: until they were, and were the same again, it is not known.
        """
        streams = self.streams_unchanged_seconds
        return self.unchanged_seconds >= after and (streams is None or streams >= after * STREAMS_SHARE)

    @property
    def share(self) -> float | None:
        """The records, else the bytes, as a share of the usual number; None if either is unknown."""
        if self.usual is None:
            return None
        for now, usual in ((self.records, self.usual.records), (self.bytes, self.usual.bytes)):
            if now is not None and usual:
                return now / usual
        return None

    def text(self) -> str:
        """Return the counts in words: ``600 records of usually 1,000, 54,000 bytes``."""
        usual = self.usual or Usual(jobs=0)
        counts = (("records", self.records, usual.records), ("bytes", self.bytes, usual.bytes))
        return ", ".join(
            f"{now:,} {unit}" + (f" of usually {most:,}" if most else "")
            for unit, now, most in counts
            if now is not None
        )

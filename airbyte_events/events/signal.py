"""Signals: what a listener concludes from a connection's jobs, such as that one has stalled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from airbyte_events._utils.json_values import instant, text, whole
from airbyte_events._utils.times import format_time


class SignalKind(StrEnum):
    """What a signal says, of a job or of a connection."""

    STALLED = "stalled"
    """The job runs and has moved no record and no byte for long."""
    SLOW = "slow"
    """The job runs for longer than a multiple of the usual duration."""
    OVERDUE = "overdue"
    """The connection has had no successful sync for too long."""
    FAILING = "failing"
    """The connection's last jobs have failed."""

    @property
    def of_job(self) -> bool:
        return self in {SignalKind.STALLED, SignalKind.SLOW}


RECOVERED = "io.airbyte.connection.recovered"
"""The CloudEvents type of every resolved signal; ``data.signal`` says which."""

_LONGEST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A signal that was raised, or resolved.

    :param job_id: the job, of a signal about one.
    :param since: when what it says began.
    :param message: for people.
    """

    kind: SignalKind
    raised: bool
    job_id: int | None = None
    since: datetime | None = None
    message: str = ""

    def key(self, connection_id: str | None) -> int:
        """Return the number that identifies the signal in its instance: negative, as jobs have positive ones."""
        subject = self.job_id if self.kind.of_job else (connection_id or "").lower()
        return -1 - int.from_bytes(hashlib.sha256(f"{self.kind.value} {subject}".encode()).digest()[:7])

    @property
    def type(self) -> str:
        """The CloudEvents type."""
        return (
            f"io.airbyte.{'job' if self.kind.of_job else 'connection'}.{self.kind.value}" if self.raised else RECOVERED
        )

    def data(self) -> dict[str, Any]:
        return {
            "signal": self.kind.value,
            "state": "raised" if self.raised else "resolved",
            "job_id": self.job_id,
            "since": format_time(self.since),
            "message": self.message,
        }

    @classmethod
    def read(cls, data: dict[str, Any]) -> Self:
        """Read :meth:`data`; unknown fields are ignored.

        :raises ValueError: if it is no signal of this version.
        """
        kind, state = SignalKind(str(data.get("signal"))), data.get("state")
        if state not in ("raised", "resolved"):
            raise ValueError("not a signal: it has no usable state")
        return cls(
            kind=kind,
            raised=state == "raised",
            job_id=whole(data.get("job_id"), 1),
            since=instant(data.get("since")),
            message=text(data.get("message"), _LONGEST) or "",
        )

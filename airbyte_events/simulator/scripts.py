"""The script of a simulated job: its phases, their durations, and its terminal status."""

# No postponed annotations here: the control API checks its JSON against these dataclasses when it runs.
import math
import re
from dataclasses import dataclass
from typing import ClassVar

from airbyte_events.events import JobError, parse_status

DEFAULT_ERROR = JobError(message="Something failed", type="system_error", origin="source")
"""The error of a failure without one."""

ENDS = ("succeeded", "failed", "cancelled")
CANCELLERS = ("user", "airbyte")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A phase of a job.

    :param status: an active status. Airbyte's own are ``pending``, ``queued``, ``running`` and ``incomplete`` (an
        attempt failed and the next has not begun); any other lower-case word simulates a newer Airbyte's.
    :param stalled: move no records and no bytes.
    :param error: why the attempt before it failed, only for ``incomplete``; by default the script's error.
    :raises ValueError: if the status is terminal, the seconds are negative, or another status has an error.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    status: str
    seconds: float
    stalled: bool = False
    error: JobError | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z_]{1,40}", self.status):
            raise ValueError(f"a phase's status is a lower-case word, not {self.status[:40]!r}")
        if parse_status(self.status).terminal:
            raise ValueError(f"{self.status!r} ends a job: say it as the script's end, not as a phase")
        if not 0 <= self.seconds < math.inf:
            raise ValueError(f"a phase lasts 0 seconds or longer, not {self.seconds}")
        if self.error is not None and self.status != "incomplete":
            raise ValueError(f"only an 'incomplete' phase has an error, not {self.status!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The phases and the completion of a job.

    :param phases: in this order, at least one. Every change from another status to ``running`` begins an attempt.
    :param end: ``succeeded``, ``failed`` or ``cancelled``, reached after the last phase; None: the job stays in its
        last phase until it is completed by hand.
    :param records: committed by a completed job, over all attempts; None: no statistics, as after a failed launch.
    :param bytes: committed, likewise.
    :param cancelled_by: who cancels a job that ends ``cancelled``: ``user``, or ``airbyte`` as for a job that waits in
        the capacity queue for too long.
    :raises ValueError: if there is no phase, or a value is out of range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    phases: tuple[Phase, ...] = (Phase(status="pending", seconds=0.2), Phase(status="running", seconds=5.0))
    end: str | None = "succeeded"
    records: int | None = 1000
    bytes: int | None = 90_000
    error: JobError | None = None
    cancelled_by: str = "user"

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a script has at least one phase")
        if self.end is not None and self.end not in ENDS:
            raise ValueError(f"a script ends in one of {', '.join(ENDS)}, or in null: never; not in {self.end[:40]!r}")
        if min(self.records or 0, self.bytes or 0) < 0:
            raise ValueError("records and bytes are 0 or more")
        if self.cancelled_by not in CANCELLERS:
            raise ValueError(f"a job is cancelled by {' or '.join(CANCELLERS)}, not by {self.cancelled_by[:40]!r}")

    def progress(self, elapsed: float) -> float:
        """Return the progress after so many seconds, from 0 to 1; without an ``end`` it approaches 1."""
        length = moved = 0.0
        for number, phase in enumerate(self.phases, 1):
            endless = self.end is None and number == len(self.phases)
            spent = elapsed if endless else min(elapsed, phase.seconds)
            elapsed -= spent
            if not phase.stalled:
                length += phase.seconds
                moved += spent
        if self.end is None:
            return moved / (moved + 10)
        return min(1.0, moved / length) if length else float(not any(phase.stalled for phase in self.phases))

    @classmethod
    def lasting(cls, seconds: float, end: str | None = "succeeded") -> "Script":
        """Return a script that is pending for a moment and then runs.

        :param seconds: from creation to end; a 25th of it, at most 0.2 s, is spent pending.
        """
        pending = min(0.2, seconds / 25)
        running = Phase(status="running", seconds=seconds - pending)
        return cls(phases=(Phase(status="pending", seconds=pending), running), end=end)

    @classmethod
    def hanging(cls, status: str = "running") -> "Script":
        """Return a script that keeps a status until the job is completed by hand."""
        return cls(phases=(Phase(status=status, seconds=0),), end=None)

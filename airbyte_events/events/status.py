"""What state a job can be in, of what type it is, and how that was detected."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """The state of an Airbyte job, by the names of Airbyte's public API."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    INCOMPLETE = "incomplete"
    """An attempt failed and another may follow."""
    UNKNOWN = "unknown"
    """A name that this version does not have."""
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
"""Which status may follow which. A status that nothing follows is terminal; every other one is active.

Active jobs move freely (a running job is ``pending`` again when Airbyte restarts its workflow, an incomplete one can
go straight to ``succeeded``), and a status that this version has never heard of is active.
"""


def parse_status(name: object) -> JobStatus:
    """Return the status of that name; :attr:`JobStatus.UNKNOWN` for any other value."""
    try:
        return JobStatus(str(name))
    except ValueError:
        return JobStatus.UNKNOWN


PUSHED_JOB_TYPES = frozenset({"sync"})
"""The job types whose completion Airbyte announces by webhook: none for clear, reset and refresh jobs."""


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
    """How a state was detected. In every case the API reported it."""

    WEBHOOK = "webhook"
    """The API was asked because a webhook came."""
    POLL = "poll"
    """Found by polling the instance."""
    SUBMIT = "submit"
    """The API was asked because a task began to wait."""
    UNKNOWN = "unknown"
    """A name that this version does not have: a newer one wrote it."""


def parse_origin(name: object) -> Origin:
    """Return the origin of that name; :attr:`Origin.UNKNOWN` for any other value."""
    try:
        return Origin(str(name))
    except ValueError:
        return Origin.UNKNOWN

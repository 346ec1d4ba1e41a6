"""Job states, job types, and origins of events."""

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
"""The transitions between states. A status without a successor is terminal; every other one is active, also an unknown
one. Active jobs can change to any status: a running job is ``pending`` again when Airbyte restarts its workflow, an
incomplete one can go straight to ``succeeded``."""


def parse_status(name: object) -> JobStatus:
    """Return the status of that name; :attr:`JobStatus.UNKNOWN` for any other value."""
    try:
        return JobStatus(str(name))
    except ValueError:
        return JobStatus.UNKNOWN


PUSHED_JOB_TYPES = frozenset({"sync"})
"""The job types whose completion Airbyte announces by webhook: none for clear, reset and refresh jobs."""


def same_job_type(one: str | None, other: str | None) -> bool:
    """Return whether two names mean the same type of job; an unknown type (None) matches none."""
    return one is not None and other is not None and reported_job_type(one) == reported_job_type(other)


def reported_job_type(name: str) -> str:
    """Return the type that Airbyte reports for a job of this type: ``reset`` for ``clear``.

    (``DefaultJobCreator`` stores both as ``reset_connection``.)
    """
    return "reset" if name == "clear" else name


class Origin(StrEnum):
    """How a state was detected. In every case the API reported it."""

    WEBHOOK = "webhook"
    """A webhook came, and the job was requested."""
    POLL = "poll"
    """Found by polling the instance."""
    SUBMIT = "submit"
    """A task began to wait, and the job was requested."""
    UNKNOWN = "unknown"
    """A name that this version does not have: a newer one wrote it."""


def parse_origin(name: object) -> Origin:
    """Return the origin of that name; :attr:`Origin.UNKNOWN` for any other value."""
    try:
        return Origin(str(name))
    except ValueError:
        return Origin.UNKNOWN

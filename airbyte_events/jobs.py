"""The seam to a job system: :class:`JobSystem`, and the values that it takes and returns.

The monitor and the hub depend on it. :class:`~airbyte_events.airbyte.client.AirbyteClient` implements it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, runtime_checkable

from airbyte_events.events import ANY_JOB, Identity, JobError, JobStatus, StreamProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the API returned it. Times are aware and in UTC; None is unknown.

    :param job_id: unique within the Airbyte instance.
    :param status: its state; :attr:`JobStatus.UNKNOWN` for a name that this version does not have.
    :param job_type: ``sync``, ``reset``, ``clear``, ``refresh`` or what else Airbyte calls it.
    :param connection_id: the Airbyte connection (UUID).
    :param updated_at: when it completed: Airbyte leaves it out while the job is active.
    :param duration_seconds: from start to completion, or until now.
    :param bytes: committed by the last attempt.
    :param records: committed by the last attempt.
    """

    job_id: int
    status: JobStatus
    job_type: str | None = None
    connection_id: str | None = None
    started_at: datetime | None = None
    updated_at: datetime | None = None
    duration_seconds: float | None = None
    bytes: int | None = None
    records: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """One page of a list of jobs.

    :param jobs: in the order that was asked for.
    :param served_at: the job system's own clock when it responded (the ``Date`` header, whole seconds, UTC).
    """

    jobs: tuple[Job, ...]
    served_at: datetime | None = None

    def ahead(self, asked: datetime, answered: datetime) -> timedelta:
        """Return how far Airbyte's clock is ahead, at least: it was read at some moment of the request, however slow.

        :param asked: when the request was sent, by our clock.
        :param answered: when the response was here.
        :return: negative where it is behind, zero where it does not say.
        """
        if self.served_at is None:
            return timedelta(0)
        # Whole seconds, cut off.
        least, most = self.served_at - answered, self.served_at + timedelta(seconds=1) - asked
        return max(least, min(most, timedelta(0)))


class RefreshMode(StrEnum):
    """What becomes of the records that a refresh replaces."""

    MERGE = "merge"
    """They are kept, and merged with what the source has now."""
    TRUNCATE = "truncate"
    """They are deleted once the refresh has succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """A refresh: read streams from the beginning.

    :param streams: by name, or by ``NAMESPACE.NAME`` where several namespaces have the name; empty: all.
    """

    mode: RefreshMode = RefreshMode.MERGE
    streams: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a job failed, as the job system reports it on request. None is unknown."""

    error: JobError | None = None
    attempts: int | None = None
    connection_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What a connection and its workspace are called. None is unknown.

    :param workspace: its name.
    """

    name: str | None = None
    workspace_id: str | None = None
    workspace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a webhook says of a job: unconfirmed until the job system reports the same. None is unknown.

    Times are aware and in UTC.

    :param expected_status: the job's state if the webhook is true; None if it announces no completion.
    :param names: of ``workspace``, ``connection``, ``source`` and ``destination``.
    :param url: the connection's page (http or https).
    :param records: committed, over all attempts; ``bytes`` likewise.
    """

    job_id: int | None = None
    expected_status: JobStatus | None = None
    workspace_id: str | None = None
    connection_id: str | None = None
    names: dict[str, str] = field(default_factory=dict)
    url: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    records: int | None = None
    bytes: int | None = None
    duration_seconds: float | None = None
    error: JobError | None = None


class JobSystem(Protocol):
    """What follows jobs, starts and cancels them needs of the system that runs them.

    Every request raises an :class:`~airbyte_events.errors.AirbyteError` if it fails:
    :class:`~airbyte_events.errors.AirbyteUnreachable`, :class:`~airbyte_events.errors.RateLimited` and
    :class:`~airbyte_events.errors.ServerError` for what may pass, :class:`~airbyte_events.errors.Unauthorized` for what
    concerns every request. Each request of a task counts against the bucket that it is
    :func:`~airbyte_events._utils.token_bucket.charged` to.
    """

    @property
    def url(self) -> str:
        """The base URL, without secrets."""

    @property
    def backing_off(self) -> float:
        """Seconds until the next request may be sent; 0 while the system responds."""

    @property
    def failing_for(self) -> float:
        """Seconds for which every request has failed; 0 while the system responds."""

    def list_changed(
        self, *, since: datetime, connection_id: str | None = None, job_types: Collection[str] = ()
    ) -> AsyncIterator[JobPage]:
        """List the jobs whose status changed then or later, page by page; the caller stops when it has enough.

        A job that changes while the list is read is in it or changes after the first page's ``served_at``.

        :param connection_id: only jobs of this connection.
        :param job_types: only these are needed, and others may be listed too; all if empty.
        """

    async def find_job(self, job_id: int, *, once: bool = False) -> Job | None:
        """Return the job; None if the system says that it does not know it.

        :param once: it is one of many and requested again later: do not retry, nor have other requests wait.
        """

    async def newest_jobs(self, connection_id: str, job_type: str | None = None) -> list[Job]:
        """Return the connection's newest jobs, the newest first: at least the active one and those of the last day.

        :param job_type: only these; None: all that the system lists by default.
        """

    async def workspace_of(self, connection_id: str) -> str | None:
        """Return the workspace of a connection, remembered; None if this client can read no such connection."""

    async def find_connection(self, name: str, workspace_id: str | None = None) -> str:
        """Return the id of the connection with this name.

        :param workspace_id: only connections of this workspace.
        :raises UnknownConnection: if there is none, or several have the name.
        """

    async def create_job(self, connection_id: str, job_type: str = "sync", refresh: Refresh | None = None) -> Job:
        """Start a job, or return the one that the connection has already begun.

        :param refresh: for the type ``refresh``. Nothing is started while the connection has an active job.
        """

    async def cancel_job(self, job_id: int, identity: Identity = ANY_JOB) -> Job:
        """Cancel the job if it is active, and return it as it is then.

        :param identity: distinguishes the job from a later one with the same id.
        :raises UnknownJob: if the id is another job's now. That one is left alone.
        """

    def read_notification(self, body: bytes) -> Announcement:
        """Read a webhook's body as it was stored; what can't be read announces nothing."""


@runtime_checkable
class DescribesConnections(Protocol):
    """What a job system may have besides :class:`JobSystem`: the names and workspaces of connections."""

    async def describe_connection(
        self, connection_id: str, *, needed: bool = False, workspace: bool = False
    ) -> Connection:
        """Return a connection, as far as it can be read now.

        It raises no :class:`~airbyte_events.errors.AirbyteError`, and remembers what it has read.

        :param needed: wait for it, and retry. Otherwise this takes seconds at most, and sends each request once.
        :param workspace: also the workspace's name.
        """


@runtime_checkable
class ExplainsFailures(Protocol):
    """What a job system may have besides :class:`JobSystem`: the reasons of failures that no webhook announced."""

    async def failure(self, job_id: int) -> Failure | None:
        """Return why a failed job failed, without a reason if the system has none; None if that can't be read now.

        It takes a few seconds at most, raises no :class:`~airbyte_events.errors.AirbyteError`, and sends one request
        at most.
        """


RUNNING_JOBS = 100
"""The most jobs that :meth:`ReportsProgress.running_jobs` returns."""


@runtime_checkable
class ReportsProgress(Protocol):
    """What a job system may have besides :class:`JobSystem`: how far its active jobs are.

    Each call sends one request, once: its failure delays no other request.
    """

    async def running_jobs(self, skip: int = 0) -> Sequence[Job]:
        """Return running jobs with their counts so far, the newest first: :data:`RUNNING_JOBS` unless there are fewer.

        :param skip: the number of jobs to skip.
        :raises AirbyteError: if they can't be listed.
        """

    async def glance(self, job_id: int) -> Job | None:
        """Return the job with its counts so far; None if the system says that it does not know it.

        :raises AirbyteError: if it can't be read.
        """

    async def stream_progress(self, job_id: int, connection_id: str) -> tuple[StreamProgress, ...] | None:
        """Return the streams of the job that runs in the connection; None if that can't be read now."""

"""The job that a task requests, and the record of it that the task stores for later tries."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from airbyte_events._utils.times import format_time, parse_time, utcnow
from airbyte_events.airbyte.submission import OnConflict, Snapshot, Submission, find_created, submit
from airbyte_events.jobs import Job, JobSystem, Refresh


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """The job that a task requested last.

    :param url: the Airbyte's URL.
    :param connection_id: the Airbyte connection (UUID).
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``.
    :param asked_at: the time of the request, by the clock of the task's process.
    :param after_id: the connection's highest job id then. A job that the task created has a higher one.
    :param job_id: the job; None until Airbyte has responded.
    :param started_at: when Airbyte created the job.
    :param max_tries: the task instance's ``max_tries`` then, which increases when a person clears the task.
    :param done: whether a retry starts another job: the task cancelled this one, or its result was not sufficient.
    :param owned: whether the task created the job, or may have created it.
    :param adopted: whether the job was active when a person cleared the task, and may still be cancelled therefore.
    :param connection_name: the connection's name if the task has that instead of the id.
    :param workspace_id: the workspace in which the name was searched.
    """

    url: str
    connection_id: str
    job_type: str
    asked_at: datetime
    after_id: int | None = None
    job_id: int | None = None
    started_at: datetime | None = None
    max_tries: int
    done: bool = False
    owned: bool = True
    adopted: bool = False
    connection_name: str | None = None
    workspace_id: str | None = None

    def values(self) -> dict[str, Any]:
        """Return JSON values."""
        times = {"asked_at": format_time(self.asked_at), "started_at": format_time(self.started_at)}
        # Earlier versions read no record with a field that they do not have.
        named = ("connection_name", "workspace_id")
        return {name: each for name, each in asdict(self).items() if name not in named or each is not None} | times

    def connection_of(self, name: str, workspace_id: str | None, url: str) -> str | None:
        """Return the id of the connection with this name, if an earlier try has found it in this Airbyte.

        :param url: the Airbyte's URL.
        """
        known = (self.connection_name, self.workspace_id, self.url)
        return self.connection_id if known == (name, workspace_id, url) else None

    @classmethod
    def parse(cls, values: object) -> JobRecord | None:
        """Return the record with these :meth:`values`; None if they are not a record's."""
        try:
            given = dict(values)  # type: ignore[call-overload]
            asked_at, started_at = parse_time(given.pop("asked_at")), parse_time(given.pop("started_at", None))
            return None if asked_at is None else cls(asked_at=asked_at, started_at=started_at, **given)
        except (TypeError, ValueError, KeyError):
            return None

    def of(self, job: Job, **changes: Any) -> JobRecord:
        """Return the record with the job that Airbyte has created for the task."""
        return replace(self, job_id=job.job_id, started_at=job.started_at, **changes)

    async def find_created(self, airbyte: JobSystem) -> Job | None:
        """Return the job that the task created, or may have created, although Airbyte's response is not recorded."""
        if self.after_id is None:
            return None
        return await find_created(airbyte, self.connection_id, self.job_type, self.after_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """The job that a task requests.

    :param connection_id: the Airbyte connection (UUID).
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``.
    :param on_conflict: what to do while another job of the connection runs.
    :param refresh: of a refresh.
    :param retry_cancelled: whether a retry starts another job after a person cancelled the last one.
    :param cancel_on_kill: whether clearing a waiting task cancels its job.
    :param min_records: the minimum of moved records, with fewer of which a job that succeeded fails the task.
    :param connection_name: see :class:`JobRecord`, as for ``workspace_id``.
    """

    connection_id: str
    job_type: str
    on_conflict: OnConflict
    retry_cancelled: bool = False
    cancel_on_kill: bool = True
    min_records: int | None = None
    connection_name: str | None = None
    workspace_id: str | None = None
    refresh: Refresh | None = None

    def record(self, url: str, after_id: int, max_tries: int = 0) -> JobRecord:
        """Return the record to store before the request: the process can die before Airbyte responds.

        :param max_tries: see :class:`JobRecord`. Unknown in the triggerer; a worker adds it when it reads the record.
        """
        return JobRecord(
            url=url,
            connection_id=self.connection_id,
            job_type=self.job_type,
            asked_at=utcnow(),
            after_id=after_id,
            max_tries=max_tries,
            connection_name=self.connection_name,
            workspace_id=self.workspace_id,
        )

    async def submit(self, airbyte: JobSystem, before: Snapshot, until: float | None) -> Submission:
        """Start the job; see :func:`~airbyte_events.airbyte.submission.submit`."""
        return await submit(
            airbyte,
            self.connection_id,
            self.job_type,
            self.on_conflict,
            refresh=self.refresh,
            before=before,
            until=until,
        )

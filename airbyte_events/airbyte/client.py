"""The client of Airbyte's public API.

Facts about the API are from the platform's ``airbyte-server`` (``publicApi``); each surprising one has a test.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from airbyte_events._utils.times import format_time
from airbyte_events.airbyte.connection_cache import ConnectionCache
from airbyte_events.airbyte.connection_search import ConnectionSearch
from airbyte_events.airbyte.internal_api import InternalApi
from airbyte_events.airbyte.models import parse_job, says_unknown
from airbyte_events.airbyte.notifications import Notification, reread
from airbyte_events.airbyte.pagination import MOST_PAGES, PAGE, JobPages, newest_jobs
from airbyte_events.airbyte.refresh_detection import REFRESH, RefreshDetection
from airbyte_events.airbyte.refresh_start import find_streams, start_refresh
from airbyte_events.airbyte.session import Session
from airbyte_events.airbyte.transport import ApiResponse
from airbyte_events.errors import AirbyteError, AirbyteProtocolError, Conflict, UnknownJob
from airbyte_events.events import ANY_JOB, Identity, JobStatus, StreamProgress, reported_job_type
from airbyte_events.jobs import RUNNING_JOBS, Connection, Failure, Job, JobPage, Refresh

logger = logging.getLogger(__name__)

GLANCE_SECONDS = 10.0
"""The longest that a request for progress takes."""

_MOST_UNKNOWN_STATUSES = 50
_MOST_CHANGED = 2**14  # pages: callers stop long before


@dataclass(eq=False, repr=False)
class AirbyteClient(Session):
    """Airbyte's public API over an :class:`httpx.AsyncClient` that the caller owns.

    Reads are retried after transient failures (no response, 408, 425, 429, 5xx) with a back-off that all callers of one
    client share; ``Retry-After`` is obeyed. Writes are retried only if Airbyte surely did not act on them. Other
    refusals are final. A refused token is renewed once per attempt.

    Every method raises the :class:`~airbyte_events.errors.AirbyteError` of the last attempt.

    The other parameters are those of :class:`~airbyte_events.airbyte.session.Session`.

    :param workspace_ids: the workspaces whose jobs are listed; if empty, all that the credentials can read.
    :param create_timeout: seconds for creating or cancelling a job, which can take Airbyte minutes.
    """

    workspace_ids: Iterable[str] = field(default=(), kw_only=True)
    create_timeout: float = field(default=180.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.workspace_ids
        self._workspace_ids = [given] if isinstance(given, str) else list(given)
        self._unknown_statuses: set[str] = set()
        self._refreshes = RefreshDetection(self.list_jobs)
        self._search = ConnectionSearch(self.list_connections)
        self.internal = InternalApi(self)
        """Airbyte's internal API, if it responds."""
        self._connections = ConnectionCache(self)

    async def get_job(self, job_id: int, *, once: bool = False) -> Job:
        """Return the job.

        :param once: for one of many jobs that are requested again later: do not retry, and do not delay other requests
            after a 500.
        :raises Conflict: self-hosted, for a job that does not exist (``state-conflict``).
        :raises Forbidden: on Cloud, for the same.
        """
        request = self.request("GET", f"/jobs/{int(job_id)}", "/jobs/{id}")
        response = await (self.read_once(request) if once else self.read(request))
        job = self._job(response)
        if job.job_id != job_id:
            raise AirbyteProtocolError(
                f"{response.request}: the response is of job {job.job_id}: let no proxy cache the API"
            )
        self._refreshes.update([job], untyped_list=False)
        return job

    async def find_job(self, job_id: int, *, once: bool = False) -> Job | None:
        """Return the job; None if Airbyte says that it does not know it. Parameters are those of :meth:`get_job`."""
        try:
            return await self.get_job(job_id, once=once)
        except AirbyteError as exc:
            if says_unknown(exc):
                return None
            raise

    async def failure(self, job_id: int) -> Failure | None:
        """Return why a failed job failed, by Airbyte's internal API; None if it can't be read now. Raises nothing."""
        return await self.internal.failure(job_id)

    async def glance(self, job_id: int) -> Job | None:
        """Return the job with its counts so far, by one request that delays no other; None if Airbyte has no such job.

        It takes :data:`GLANCE_SECONDS` at most.
        """
        request = self.request("GET", f"/jobs/{int(job_id)}", "/jobs/{id}", timeout=GLANCE_SECONDS)
        try:
            job = self._job(await self.read_aside(request))
        except AirbyteError as exc:
            if says_unknown(exc):
                return None
            raise
        return job if job.job_id == job_id else None

    async def running_jobs(self, skip: int = 0) -> list[Job]:
        """Return a page of running jobs with their counts so far, the newest first; otherwise as :meth:`glance`."""
        params = {
            "status": "running",
            "orderBy": "createdAt|DESC",
            "limit": RUNNING_JOBS,
            "offset": skip,
            "workspaceIds": self._workspace_ids or None,
        }
        request = self.request("GET", "/jobs", params=params, timeout=GLANCE_SECONDS)
        return self._jobs(await self.read_aside(request))

    async def stream_progress(self, job_id: int, connection_id: str) -> tuple[StreamProgress, ...] | None:
        """Return the streams of the job that runs in the connection, by Airbyte's internal API, if it responds."""
        return await self.internal.stream_progress(job_id, connection_id)

    async def list_jobs(
        self,
        *,
        updated_since: datetime | None = None,
        created_since: datetime | None = None,
        connection_id: str | None = None,
        job_type: str | None = None,
        status: JobStatus | None = None,
        limit: int = PAGE,
        offset: int = 0,
        order_by: str | None = None,
        once: bool = False,
    ) -> JobPage:
        """Return one page of jobs, the oldest first by default.

        Without ``job_type``, Airbyte up to 2.0 leaves out refreshes, see :meth:`find_refreshes`.

        :param updated_since: jobs whose status changed then or later.
        :param created_since: jobs created then or later.
        :param job_type: ``sync``, ``reset`` or ``refresh``; ``clear`` is the same as ``reset``, which Airbyte stores.
        :param status: jobs in this state. Some releases respond 500 to it.
        :param limit: 1 to 100.
        :param offset: the number of jobs to skip.
        :param order_by: such as ``updatedAt|ASC``. Some releases respond 500 to it.
        :param once: see :meth:`get_job`.
        """
        if not 1 <= limit <= PAGE or offset < 0:
            raise ValueError(f"limit must be from 1 to {PAGE} and offset not negative")
        params = {
            "limit": limit,
            "offset": offset,
            "workspaceIds": self._workspace_ids or None,
            "connectionId": connection_id,
            "jobType": None if job_type is None else reported_job_type(job_type),
            "status": None if status is None else status.value,
            "createdAtStart": format_time(created_since),
            "updatedAtStart": format_time(updated_since),
            "orderBy": order_by,
        }
        request = self.request("GET", "/jobs", params=params)
        response = await (self.read_once(request) if once else self.read(request))
        page = JobPage(jobs=tuple(self._jobs(response)), served_at=response.served_at)
        self._refreshes.update(page.jobs, untyped_list=job_type is None)
        return page

    def find_jobs(
        self,
        *,
        updated_since: datetime | None = None,
        connection_id: str | None = None,
        job_type: str | None = None,
        max_pages: int = MOST_PAGES,
        rest: Callable[[], Awaitable[Iterable[JobPage]]] | None = None,
    ) -> JobPages:
        """Return all jobs that match, page by page: ``async for page in client.find_jobs(…)``.

        :param max_pages: 100 jobs each; if more match, the iteration raises an :class:`AirbyteError`.
        :param rest: see :class:`JobPages`.
        """
        list_page = partial(self.list_jobs, updated_since=updated_since, connection_id=connection_id, job_type=job_type)
        return JobPages(lambda offset: list_page(limit=PAGE, offset=offset), max_pages, rest)

    async def find_refreshes(self, *, updated_since: datetime, connection_id: str | None = None) -> list[JobPage]:
        """Return the refreshes that :meth:`find_jobs` leaves out without a type: none from Airbyte 2.1 on.

        The parameters are those of :meth:`find_jobs`. Once the release is known, this sends one request if refreshes
        are left out and none otherwise.
        """
        left_out, all_of_them = await self._refreshes.left_out()
        if all_of_them is not None:
            return [all_of_them]
        if not left_out:
            return []
        return [
            page
            async for page in self.find_jobs(updated_since=updated_since, connection_id=connection_id, job_type=REFRESH)
        ]

    def list_changed(
        self, *, since: datetime, connection_id: str | None = None, job_types: Collection[str] = ()
    ) -> JobPages:
        """List the jobs whose status changed then or later, refreshes included, page by page; stop at any page.

        :param job_types: the types that are needed; all if empty. Refreshes that lists leave out are requested only if
            they are among them.
        """

        async def refreshes() -> list[JobPage]:
            if job_types and REFRESH not in job_types:
                return []
            return await self.find_refreshes(updated_since=since, connection_id=connection_id)

        return self.find_jobs(updated_since=since, connection_id=connection_id, max_pages=_MOST_CHANGED, rest=refreshes)

    def read_notification(self, body: bytes) -> Notification:
        return reread(body)

    async def create_job(self, connection_id: str, job_type: str = "sync", refresh: Refresh | None = None) -> Job:
        """Start a job.

        Until the first attempt of the connection's active job begins, Airbyte returns that job. There is no idempotency
        key: after an :class:`AirbyteUnreachable` that is not :class:`NotSent`, or a :class:`ServerError`, the job may
        exist all the same; list the connection's jobs to find it.

        :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``.
        :param refresh: of a refresh, which Airbyte's internal API starts. The request is not sent while the connection
            has an active job, and is never repeated.
        :raises Conflict: ``try-again-later`` while an attempt runs, ``state-conflict`` for an inactive connection.
        :raises Unsupported: if this Airbyte starts no refresh for this client.
        """
        if job_type == REFRESH:
            return await self._create_refresh(connection_id, refresh or Refresh())
        fields = {"connectionId": connection_id, "jobType": job_type}
        request = self.request("POST", "/jobs", json=fields, timeout=self.create_timeout)
        return self._job(await self.write(request))

    async def _create_refresh(self, connection_id: str, refresh: Refresh) -> Job:
        streams = find_streams(await self.get_connection(connection_id), refresh.streams) if refresh.streams else []
        jobs = await self.newest_jobs(connection_id) + await self.newest_jobs(connection_id, REFRESH)
        active = next((job for job in jobs if not job.status.terminal), None)
        if active is not None:
            raise Conflict(409, f"job {active.job_id} of connection {connection_id} is active", type="try-again-later")
        job = await start_refresh(self, connection_id, refresh.mode, streams, self.create_timeout)
        self._refreshes.update([job], untyped_list=False)
        return job

    async def cancel_job(self, job_id: int, identity: Identity = ANY_JOB) -> Job:
        """Cancel the job if it is active.

        Airbyte's ``DELETE /jobs/{id}`` cancels the *connection's* current job, whichever id is given. So the job is
        read first, nothing is sent if it has completed, and the request is never retried: it might cancel the
        connection's next sync.

        :return: the job after cancelling or, if it had completed, as it is.
        :raises UnknownJob: if another job has the id now. That one is not cancelled.
        :raises Conflict: ``state-conflict`` if it completed in between.
        """
        job = await self.get_job(job_id)
        if not identity.fits(job):
            raise UnknownJob(f"job {job_id} is another one now, of connection {job.connection_id}")
        if job.status.terminal:
            return job
        request = self.request("DELETE", f"/jobs/{int(job_id)}", "/jobs/{id}", timeout=self.create_timeout)
        return self._job(await self.write_once(request))

    async def newest_jobs(self, connection_id: str, job_type: str | None = None) -> list[Job]:
        """Return the connection's newest jobs; see :func:`~airbyte_events.airbyte.pagination.newest_jobs`."""
        return await newest_jobs(self.list_jobs, connection_id, job_type)

    async def describe_connection(
        self, connection_id: str, *, needed: bool = False, workspace: bool = False
    ) -> Connection:
        """Return what a connection is called; see :class:`~airbyte_events.jobs.DescribesConnections`."""
        return await self._connections.find(connection_id, needed=needed, workspace=workspace)

    async def workspace_of(self, connection_id: str) -> str | None:
        """Return the workspace of a connection; see :class:`~airbyte_events.jobs.JobSystem`."""
        return await self._connections.workspace_of(connection_id)

    async def get_connection(self, connection_id: str) -> dict[str, Any]:
        """Return the connection, in Airbyte's own fields.

        :raises NotFound: or :class:`Forbidden`, if there is none.
        :raises ValueError: if the id is no id.
        """
        return await self._get("connections", connection_id)

    async def list_workspaces(self) -> list[dict[str, Any]]:
        """Return all workspaces that the credentials can read, in Airbyte's own fields, including ``notifications``."""
        return await self._list("workspaces")

    async def get_workspace(self, workspace_id: str) -> dict[str, Any]:
        """Return the workspace as :meth:`list_workspaces` does; raise as :meth:`get_connection` does."""
        return await self._get("workspaces", workspace_id)

    async def set_notifications(self, workspace_id: str, notifications: dict[str, Any]) -> dict[str, Any]:
        """Change a workspace's notification settings; kinds and channels that are not given stay as they are.

        :param notifications: by kind, ``{"success": {"webhook": {"enabled": True, "url": "https://…"}}}``.
        :return: the changed workspace.
        """
        path, changed = f"/workspaces/{_checked('workspaces', workspace_id)}", {"notifications": notifications}
        request = self.request("PATCH", path, "/workspaces/{id}", json=changed)
        # Idempotent, so it may be retried.
        return (await self.read(request)).object()

    async def list_connections(self, workspace_id: str | None = None) -> list[dict[str, Any]]:
        """Return all connections, in Airbyte's own fields; an :class:`AirbyteError` if there are more than 10,000."""
        return await self._list("connections", workspace_id)

    async def find_connection(self, name: str, workspace_id: str | None = None) -> str:
        """Return the id of the connection with this name. Callers share a list of connections for up to a minute.

        :raises UnknownConnection: if there is none, or several have the name; the message lists candidates.
        """
        return await self._search.find(name, workspace_id)

    async def _list(self, kind: str, workspace_id: str | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for _ in range(MOST_PAGES):
            params = {"limit": PAGE, "offset": len(found), "workspaceIds": workspace_id or self._workspace_ids or None}
            response = await self.read(self.request("GET", f"/{kind}", params=params))
            page = _listed(response, kind)
            found += page
            if len(page) < PAGE:
                return found
        raise AirbyteError(f"Airbyte has more than {MOST_PAGES * PAGE} {kind}, or ignores the offset")

    async def get_source(self, source_id: str) -> dict[str, Any]:
        """Return the source as :meth:`get_connection` does. Airbyte masks the secrets in its configuration."""
        return await self._get("sources", source_id)

    async def get_destination(self, destination_id: str) -> dict[str, Any]:
        """Return the destination as :meth:`get_source` does."""
        return await self._get("destinations", destination_id)

    async def _get(self, kind: str, id: str) -> dict[str, Any]:
        request = self.request("GET", f"/{kind}/{_checked(kind, id)}", f"/{kind}/{{id}}")
        return (await self.read(request)).object()

    async def health(self) -> None:
        """Request the API's health once, without a token; raise if it is not reachable."""
        response = await self.ask(self.request("GET", "/health"))
        response.refuse_page()

    def _jobs(self, response: ApiResponse) -> list[Job]:
        return [self._parse(response, job) for job in _listed(response, "jobs")]

    def _job(self, response: ApiResponse) -> Job:
        return self._parse(response, response.object())

    def _parse(self, response: ApiResponse, fields: object) -> Job:
        try:
            job = parse_job(fields)
        except ValueError as exc:
            raise AirbyteProtocolError(f"{response.request}: the response has {exc}") from exc
        if job.status is JobStatus.UNKNOWN and isinstance(fields, dict):
            name = str(fields["status"])[:40]
            if name not in self._unknown_statuses and len(self._unknown_statuses) < _MOST_UNKNOWN_STATUSES:
                self._unknown_statuses.add(name)
                logger.warning("unknown job status, counted as active: status=%r", name)
        return job


def _listed(response: ApiResponse, kind: str) -> list[dict[str, Any]]:
    listed = response.object().get("data")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise AirbyteProtocolError(f"{response.request}: the response has no list of {kind}")
    return listed


def _checked(kind: str, id: str) -> str:
    if re.fullmatch(r"[0-9A-Za-z_-]+", id) is None:
        raise ValueError(f"{kind} have UUIDs for ids")
    return id

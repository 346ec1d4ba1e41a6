"""The client of Airbyte's public API: what this package needs of it, with its oddities in mind.

Facts about the API are from the platform's ``airbyte-server`` (``publicApi``); each surprising one has a test.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import httpx

from airbyte_events._utils.times import format_time
from airbyte_events.airbyte.auth import Credentials
from airbyte_events.airbyte.models import parse_job, says_unknown
from airbyte_events.airbyte.notifications import Notification, reread
from airbyte_events.airbyte.pagination import MOST_PAGES, PAGE, ChangedJobs, JobPages
from airbyte_events.airbyte.refreshes import REFRESH, Refreshes
from airbyte_events.airbyte.session import Session
from airbyte_events.airbyte.transport import ApiResponse, Observer
from airbyte_events.errors import (
    AirbyteError,
    AirbyteProtocolError,
    UnknownJob,
)
from airbyte_events.events import ANY_JOB, Identity, JobStatus, reported_job_type
from airbyte_events.jobs import Job, JobPage

logger = logging.getLogger(__name__)

_MOST_UNKNOWN_STATUSES = 50
_MOST_CHANGED = 2**14  # pages: whoever lists changes stops long before


class AirbyteClient:
    """Airbyte's public API over an :class:`httpx.AsyncClient` that the caller owns.

    Reads are repeated when they fail for a while (no answer, 408, 425, 429, 5xx), after a back-off that all callers
    of one client share, ``Retry-After`` obeyed. What changes something is repeated only if it surely was not acted
    upon. Other refusals are final. A token that is refused is renewed once per attempt.

    Every method raises the :class:`~airbyte_events.errors.AirbyteError` of the last attempt.

    :param http: for TLS, proxies and connection limits; its time-outs and redirect setting are not used. Best one that
        takes no cookies (:func:`~airbyte_events._utils.http.no_cookies`): httpx fails at one that is not ASCII, for
        ever.
    :param url: in any spelling that :func:`normalise_url` takes.
    :param credentials: of an application; None for an Airbyte without authentication.
    :param token_url: see :func:`~airbyte_events.airbyte.url.token_endpoint`.
    :param workspace_ids: the workspaces whose jobs are listed; all that the credentials see if empty.
    :param timeout: seconds for one attempt, connection to last byte.
    :param create_timeout: seconds for creating or cancelling a job, which takes Airbyte up to minutes.
    :param attempts: how often a read is tried, at least once.
    :param base_delay: seconds, the most that is waited after the first failure.
    :param max_delay: seconds, the most that is waited after any, unless Airbyte asks for more.
    :param random: from 0 to 1, for the jitter.
    :param on_request: told of each request that was made.
    :raises SettingsError: if a URL is wrong, or ``attempts`` is.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        *,
        credentials: Credentials | None = None,
        token_url: str | None = None,
        workspace_ids: Iterable[str] = (),
        timeout: float = 20.0,
        create_timeout: float = 180.0,
        attempts: int = 5,
        base_delay: float = 1.0,
        max_delay: float = 60.0,
        random: Callable[[], float] = random.random,
        on_request: Observer | None = None,
    ) -> None:
        self._session = Session(
            http,
            url,
            credentials=credentials,
            token_url=token_url,
            timeout=timeout,
            attempts=attempts,
            base_delay=base_delay,
            max_delay=max_delay,
            random=random,
            on_request=on_request,
        )
        self._workspace_ids = [workspace_ids] if isinstance(workspace_ids, str) else list(workspace_ids)
        self._create_timeout = create_timeout
        self._unknown_statuses: set[str] = set()
        self._refreshes = Refreshes(self.list_jobs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def url(self) -> str:
        """The API's base."""
        return self._session.url

    def authenticate(self, credentials: Credentials) -> bool:
        """Use these credentials from now on.

        :return: whether they are others than before.
        """
        return self._session.authenticate(credentials)

    @property
    def backing_off(self) -> float:
        """Seconds until the next attempt may set out, 0 if Airbyte answers. To be read inside the event loop."""
        return self._session.backing_off

    @property
    def failing_for(self) -> float:
        """Seconds for which every request has failed, from the first to the last; 0 if Airbyte answers."""
        return self._session.failing_for

    async def get_job(self, job_id: int, *, once: bool = False) -> Job:
        """The job's state.

        :param once: it is one of many, and asked for again later: do not repeat it, and if Airbyte fails over this one
            (500) do not have others wait.
        :raises Conflict: self-hosted, for a job that does not exist (``state-conflict``).
        :raises Forbidden: on Cloud, for the same.
        """
        request = self._session.request("GET", f"/jobs/{int(job_id)}", "/jobs/{id}")
        response = await (self._session.read_once(request) if once else self._session.read(request))
        job = self._job(response)
        if job.job_id != job_id:
            raise AirbyteProtocolError(
                f"{response.request}: the response is of job {job.job_id}: let no proxy cache the API"
            )
        self._refreshes.see([job], untyped_list=False)
        return job

    async def find_job(self, job_id: int, *, once: bool = False) -> Job | None:
        """Return the job; None if Airbyte says that it does not know it. Parameters are those of :meth:`get_job`."""
        try:
            return await self.get_job(job_id, once=once)
        except AirbyteError as exc:
            if says_unknown(exc):
                return None
            raise

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
        """One page of jobs, the oldest first unless ordered otherwise.

        Up to Airbyte 2.0 refreshes are left out where ``job_type`` is not given, see :meth:`find_refreshes`.

        :param updated_since: jobs whose status changed then or later.
        :param created_since: jobs created then or later.
        :param connection_id: jobs of this connection.
        :param job_type: ``sync``, ``reset`` or ``refresh``; ``clear`` is the same as ``reset``, which Airbyte stores.
        :param status: jobs in this state. Some releases answer 500 to it.
        :param limit: 1 to 100.
        :param offset: how many to skip.
        :param order_by: ``updatedAt|ASC`` and the like. Some releases answer 500 to it.
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
        given = {name: value for name, value in params.items() if value is not None}
        request = replace(self._session.request("GET", "/jobs"), params=given)
        response = await (self._session.read_once(request) if once else self._session.read(request))
        jobs = response.object().get("data")
        if not isinstance(jobs, list):
            raise AirbyteProtocolError(f"{response.request}: the response has no list of jobs")
        page = JobPage(jobs=tuple(self._parse(response, job) for job in jobs), served_at=response.served_at)
        self._refreshes.see(page.jobs, untyped_list=job_type is None)
        return page

    def find_jobs(
        self,
        *,
        updated_since: datetime | None = None,
        created_since: datetime | None = None,
        connection_id: str | None = None,
        job_type: str | None = None,
        max_pages: int = MOST_PAGES,
    ) -> JobPages:
        """All jobs that match, page by page: ``async for page in client.find_jobs(…)``.

        :param max_pages: 100 jobs each; if more match, the iteration ends in an :class:`AirbyteError`.
        """
        look = partial(
            self.list_jobs,
            updated_since=updated_since,
            created_since=created_since,
            connection_id=connection_id,
            job_type=job_type,
        )
        return JobPages(lambda offset: look(limit=PAGE, offset=offset), max_pages)

    async def find_refreshes(self, *, updated_since: datetime, connection_id: str | None = None) -> list[JobPage]:
        """The refreshes that :meth:`find_jobs` leaves out where it is given no type: none from Airbyte 2.1 on.

        The parameters are those of :meth:`find_jobs`. Costs one request where refreshes are left out and nothing where
        they are listed, once that is known.
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
    ) -> ChangedJobs:
        """List the jobs whose status changed then or later, refreshes included, page by page; stop at any page.

        :param connection_id: only jobs of this connection.
        :param job_types: the types that are needed; all if empty. Refreshes that lists leave out are asked for only if
            they are among them.
        """

        async def refreshes() -> list[JobPage]:
            if job_types and REFRESH not in job_types:
                return []
            return await self.find_refreshes(updated_since=since, connection_id=connection_id)

        pages = self.find_jobs(updated_since=since, connection_id=connection_id, max_pages=_MOST_CHANGED)
        return ChangedJobs(pages, refreshes)

    def read_notification(self, body: bytes) -> Notification:
        """Read a webhook's body that was stored; one that can't be read is of an unknown kind."""
        return reread(body)

    async def create_job(self, connection_id: str, job_type: str = "sync") -> Job:
        """Start a job.

        While the connection's job has not begun its first attempt, Airbyte answers with that same job. There is no
        idempotency key: after an :class:`AirbyteUnreachable` that is not :class:`NotSent`, or a
        :class:`ServerError`, the job may exist all the same, and only a look at the connection's jobs can tell.

        :param job_type: ``sync``, ``reset`` or ``clear``.
        :raises Conflict: ``try-again-later`` while an attempt runs, ``state-conflict`` for an inactive connection.
        :raises Unprocessable: for ``refresh``.
        """
        request = replace(
            self._session.request("POST", "/jobs"),
            json={"connectionId": connection_id, "jobType": job_type},
            timeout=self._create_timeout,
        )
        return self._job(await self._session.write(request))

    async def cancel_job(self, job_id: int, identity: Identity = ANY_JOB) -> Job:
        """Cancel the job if it is active.

        Airbyte's ``DELETE /jobs/{id}`` cancels the *connection's* current job, whichever id it is sent for. So the
        job is read first, nothing is sent for one that has ended, and what was sent once is never sent again: by
        then the connection's next sync might be the one that is hit.

        :param identity: what tells the job from another one that has been given its number since.
        :return: the job, as cancelling it left it or, if it had ended, as it is.
        :raises UnknownJob: if the number is another job's now. That one is left alone.
        :raises Conflict: ``state-conflict`` if it ended in between.
        """
        job = await self.get_job(job_id)
        if not identity.fits(job):
            raise UnknownJob(f"job {job_id} is another one now, of connection {job.connection_id}")
        if job.status.terminal:
            return job
        request = replace(
            self._session.request("DELETE", f"/jobs/{int(job_id)}", "/jobs/{id}"), timeout=self._create_timeout
        )
        return self._job(await self._session.write_once(request))

    async def get_connection(self, connection_id: str, *, attempts: int | None = None) -> dict[str, Any]:
        """The connection, in Airbyte's own fields.

        :param attempts: how often it is tried, in place of the client's.
        :raises NotFound: or :class:`Forbidden`, if there is none.
        """
        return await self._get("connections", connection_id, attempts)

    async def list_workspaces(self) -> list[dict[str, Any]]:
        """All workspaces that the credentials see, in Airbyte's own fields, ``notifications`` among them."""
        return await self._list("workspaces")

    async def get_workspace(self, workspace_id: str) -> dict[str, Any]:
        """The workspace, as :meth:`list_workspaces`; raises as :meth:`get_connection` does."""
        return await self._get("workspaces", workspace_id, None)

    async def set_notifications(self, workspace_id: str, notifications: dict[str, Any]) -> dict[str, Any]:
        """Change where a workspace sends notifications. What is not named stays as it is.

        :param notifications: by kind, ``{"success": {"webhook": {"enabled": True, "url": "https://…"}}}``.
        :return: the workspace as it is then.
        """
        request = replace(
            self._session.request("PATCH", f"/workspaces/{_checked('workspaces', workspace_id)}", "/workspaces/{id}"),
            json={"notifications": notifications},
        )
        # Sent twice it does what it does once.
        return (await self._session.read(request)).object()

    async def list_connections(self) -> list[dict[str, Any]]:
        """All connections, in Airbyte's own fields; an :class:`AirbyteError` if they are more than 10,000."""
        return await self._list("connections")

    async def _list(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for _ in range(MOST_PAGES):
            params = {"limit": PAGE, "offset": len(found), "workspaceIds": self._workspace_ids or None}
            given = {name: value for name, value in params.items() if value is not None}
            response = await self._session.read(replace(self._session.request("GET", f"/{kind}"), params=given))
            page = response.object().get("data")
            if not isinstance(page, list) or not all(isinstance(each, dict) for each in page):
                raise AirbyteProtocolError(f"{response.request}: the response has no list of {kind}")
            found += page
            if len(page) < PAGE:
                return found
        raise AirbyteError(f"Airbyte has more than {MOST_PAGES * PAGE} {kind}, or ignores the offset")

    async def get_source(self, source_id: str, *, attempts: int | None = None) -> dict[str, Any]:
        """The source, as :meth:`get_connection`. What is secret in its configuration Airbyte has blotted out."""
        return await self._get("sources", source_id, attempts)

    async def get_destination(self, destination_id: str, *, attempts: int | None = None) -> dict[str, Any]:
        """The destination, as :meth:`get_source`."""
        return await self._get("destinations", destination_id, attempts)

    async def _get(self, kind: str, id: str, attempts: int | None) -> dict[str, Any]:
        request = self._session.request("GET", f"/{kind}/{_checked(kind, id)}", f"/{kind}/{{id}}")
        return (await self._session.read(request, attempts)).object()

    async def health(self) -> None:
        """Ask once, without a token, whether the API is there; returns if it is."""
        response = await self._session.ask(self._session.request("GET", "/health"))
        response.refuse_page()

    def _job(self, response: ApiResponse) -> Job:
        return self._parse(response, response.object())

    def _parse(self, response: ApiResponse, fields: object) -> Job:
        try:
            job = parse_job(fields)
        except ValueError as exc:
            raise AirbyteProtocolError(f"{response.request}: the response has {exc}") from exc
        if job.status is JobStatus.UNKNOWN and isinstance(fields, dict):
            self._warn_of_status(str(fields["status"])[:40])
        return job

    def _warn_of_status(self, name: str) -> None:
        if name not in self._unknown_statuses and len(self._unknown_statuses) < _MOST_UNKNOWN_STATUSES:
            self._unknown_statuses.add(name)
            logger.warning("unknown job status, counted as active: status=%r", name)


def _checked(kind: str, id: str) -> str:
    if re.fullmatch(r"[0-9A-Za-z_-]+", id) is None:
        raise ValueError(f"{kind} have UUIDs for ids")
    return id

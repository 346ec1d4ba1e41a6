"""Lists such as ``GET /jobs``: filters, order, pages, and their misleading links."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from starlette.datastructures import QueryParams

from airbyte_events._utils.times import parse_time
from airbyte_events.events import JobStatus
from airbyte_events.simulator.models import Job
from airbyte_events.simulator.responses import Problem, bad_request
from airbyte_events.simulator.world import World

INTERNAL_HOST = "http://airbyte-airbyte-server-svc:8001/api/public/v1"
"""The host in ``next`` and ``previous``, which is known inside the cluster only."""

JOB_TYPES = ("sync", "reset", "refresh", "clear")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """:param limit: 1 to 100.
    :param offset: how many to leave out at the start.
    """

    limit: int
    offset: int

    @classmethod
    def of(cls, query: QueryParams) -> Page:
        """:raises FrameworkError: if limit or offset is out of range."""
        limit = _converted("limit", query.get("limit") or "20", int)
        offset = _converted("offset", query.get("offset") or "0", int)
        if not 1 <= limit <= 100:
            raise bad_request("limit: must be between 1 and 100")
        if offset < 0:
            raise bad_request("offset: must be greater than or equal to 0")
        return cls(limit, offset)

    def cut(self, things: Sequence[T]) -> Sequence[T]:
        return things[self.offset : self.offset + self.limit]

    def data(self, path: str, data: list[dict[str, Any]], kept: dict[str, str]) -> dict[str, Any]:
        """Return the page in Airbyte's shape: ``next`` is on every page that is not empty, last or not.

        :param kept: the parameters that the links keep; they lose all others.
        """

        def link(offset: int) -> str:
            return f"{INTERNAL_HOST}{path}?{urlencode({**kept, 'limit': self.limit, 'offset': offset})}"

        return {
            "previous": link(max(0, self.offset - self.limit)) if self.offset else "",
            "next": link(self.offset + self.limit) if data else "",
            "data": data,
        }


def workspace_ids(query: QueryParams) -> list[str]:
    """Return the ``workspaceIds``, given once with commas or several times."""
    return [
        as_uuid("workspaceIds", part) for value in query.getlist("workspaceIds") for part in value.split(",") if part
    ]


def select_jobs(world: World, query: QueryParams, *, refreshes: bool) -> list[Job]:
    """Return the jobs that match the query's filters, in its order.

    :param refreshes: whether a query without ``jobType`` finds refreshes.
    :raises FrameworkError: if a parameter has no such value.
    :raises Problem: if a connection or the order does not exist.
    """
    status, job_type = _given(query, "status", _status), _given(query, "jobType", _job_type)
    workspaces = workspace_ids(query)
    created = [_given(query, name, parse_time) for name in ("createdAtStart", "createdAtEnd")]
    updated = [_given(query, name, parse_time) for name in ("updatedAtStart", "updatedAtEnd")]
    field, descending = _order(query.get("orderBy"))

    jobs: list[Job]
    if query.get("connectionId"):
        connection = world.connections.get(as_uuid("connectionId", query["connectionId"]))
        jobs = connection.jobs if connection else []
    elif updated[0] is not None:
        # Pollers send this all the time: the cost depends on the recent changes, not on the number of jobs.
        start = updated[0]
        changed = takewhile(lambda job: job.updated_at >= start, reversed(world.recent.values()))
        jobs = sorted(changed, key=lambda job: job.id)
    else:
        jobs = list(world.jobs.values())
    chosen = [
        job
        for job in jobs
        if (status is None or job.status == status)
        and (job.type == job_type if job_type else refreshes or job.type != "refresh")
        and (not workspaces or job.connection.workspace_id in workspaces)
        and _within(job.created_at, *created)
        and _within(job.updated_at, *updated)
    ]
    return sorted(chosen, key=field, reverse=descending)


def as_uuid(name: str, value: object) -> str:
    """Return the UUID as Airbyte writes it.

    :raises FrameworkError: if it is no UUID.
    """
    return str(_converted(name, str(value), UUID))


def _converted(name: str, value: str, convert: Callable[[str], T]) -> T:
    try:
        return convert(value)
    except ValueError:
        raise bad_request(f"Failed to convert argument [{name}] for value [{value[:80]}]") from None


_ORDERS: dict[str, Callable[[Job], datetime]] = {
    "createdAt": lambda job: job.created_at,
    "updatedAt": lambda job: job.updated_at,
}


def _order(text: str | None) -> tuple[Callable[[Job], datetime], bool]:
    text = "createdAt|ASC" if text is None else text
    name, _, direction = text.partition("|")
    if name not in _ORDERS or direction not in ("ASC", "DESC"):
        raise Problem(400, "bad-request", f"Invalid orderBy [{text[:80]}]: createdAt|ASC, updatedAt|DESC, …")
    return _ORDERS[name], direction == "DESC"


def _within(moment: datetime, start: datetime | None, end: datetime | None) -> bool:
    return (start is None or moment >= start) and (end is None or moment <= end)


def _given(query: QueryParams, name: str, convert: Callable[[str], T]) -> T | None:
    value = query.get(name)
    return _converted(name, value, convert) if value else None


def _job_type(name: str) -> str:
    if name not in JOB_TYPES:
        raise ValueError
    return name


def _status(name: str) -> JobStatus:
    if (status := JobStatus(name)) is JobStatus.UNKNOWN:
        raise ValueError
    return status

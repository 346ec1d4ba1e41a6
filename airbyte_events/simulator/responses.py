"""Airbyte's responses: jobs, times, durations, and three shapes of error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from starlette.responses import JSONResponse

from airbyte_events._utils.times import utcnow
from airbyte_events.simulator.models import Actor, Connection, Job, Workspace, sample_id

_ERRORS_PAGE = "https://reference.airbyte.com/reference/errors"

# By title: the tail of ``type``, and ``detail``; constants of the platform's ``api-problems.yaml``. ``data`` has the
# actual fault.
_PROBLEMS = {
    "bad-request": ("#bad-request", "The request could not be understood by the server due to malformed syntax."),
    "forbidden": ("#forbidden", "The request is forbidden."),
    "resource-not-found": ("#resource-not-found", "The requested resource could not be found."),
    "state-conflict": ("#409-state-conflict", "State conflict"),
    "try-again-later": ("#try-again-later", "Please try again later."),
    "unprocessable-entity": ("#unprocessable-entity", "The body of the request was not understood"),
    "unexpected-problem": ("", "An unexpected problem has occurred."),
}


class Problem(Exception):
    """A problem document.

    :param title: the document's ``title``, such as ``state-conflict``.
    :param data: the fault in a sentence, or the fields of the document's ``data``.
    """

    def __init__(self, status: int, title: str, data: str | dict[str, str]) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.data = {"message": data} if isinstance(data, str) else data

    def response(self) -> JSONResponse:
        tail, detail = _PROBLEMS[self.title]
        return JSONResponse(
            {
                "title": self.title,
                "status": self.status,
                "detail": detail,
                "type": _ERRORS_PAGE + tail,
                "data": self.data,
            },
            self.status,
        )


PROBLEMS = tuple(_PROBLEMS)
"""The titles of problem documents."""


class FrameworkError(Exception):
    """An error of the web framework, before a request reaches Airbyte's own code.

    :param message: the status phrase.
    """

    def __init__(self, status: int, message: str, details: str | None = None) -> None:
        super().__init__(details or message)
        self.status = status
        self.message = message

    def response(self, path: str) -> JSONResponse:
        return JSONResponse(
            {
                "message": self.message,
                "_links": {"self": {"href": path, "templated": False}},
                "_embedded": {"errors": [{"message": str(self), "_links": {}, "_embedded": {}}]},
            },
            self.status,
        )


def bad_request(details: str) -> FrameworkError:
    """Return the error for a wrong type, a missing field or a value out of range."""
    return FrameworkError(400, "Bad Request", details)


def not_found() -> FrameworkError:
    """Return the error for a path that has no route."""
    return FrameworkError(404, "Not Found", "Page Not Found")


def wrong_secret(path: str, *, simple_auth: bool) -> JSONResponse:
    """Return Keycloak's refusal of a client id or secret, or that of Airbyte's simple authentication (``abctl``)."""
    if simple_auth:
        return bad_request("Invalid client id or token").response(path)
    return JSONResponse({"errorId": str(uuid4())}, 401)


def rate_limited() -> JSONResponse:
    """Return the refusal of a rate-limited user, which has no ``Retry-After``."""
    return JSONResponse({"message": "You are being rate limited."}, 429)


def java_time(moment: datetime) -> str:
    """Format as Java's ``OffsetDateTime`` in whole seconds, which are omitted if they are zero."""
    moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="seconds" if moment.second else "minutes") + "Z"


def java_instant(moment: datetime) -> str:
    """Format as Java's ``Instant``, cut to whole seconds, as in webhooks."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def java_duration(seconds: int) -> str:
    """Format as Java's ``Duration``: ``PT1H2M3S``, ``PT0S``."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{number}{unit}" for number, unit in ((hours, "H"), (minutes, "M"), (rest, "S")) if number]
    return "PT" + ("".join(parts) or "0S")


def job_data(job: Job) -> dict[str, Any]:
    """Return the job as ``GET /jobs`` and ``GET /jobs/{id}`` return it."""
    data: dict[str, Any] = {
        "jobId": job.id,
        "status": job.status,
        "jobType": job.type,
        "startTime": java_time(job.created_at),
        "connectionId": job.connection.id,
    }
    if job.terminal:
        data["lastUpdatedAt"] = java_time(job.updated_at)
    if job.status != "pending":
        data["duration"] = java_duration(int(job.updated_at.timestamp()) - int(job.created_at.timestamp()))
    counts = job.counts(utcnow())
    if counts.bytes is not None:
        data["bytesSynced"] = counts.bytes
    if counts.records is not None:
        data["rowsSynced"] = counts.records
    return data


def connection_data(connection: Connection) -> dict[str, Any]:
    """Return the connection as ``GET /connections/{id}`` returns it."""
    return {
        "connectionId": connection.id,
        "name": connection.name,
        "sourceId": connection.source_id,
        "destinationId": connection.destination_id,
        "workspaceId": connection.workspace_id,
        "status": "active" if connection.active else "inactive",
        "schedule": {"scheduleType": "manual"},
        **connection.streams,
        "nonBreakingSchemaUpdatesBehavior": "ignore",
        "createdAt": int(connection.created_at.timestamp()),
        "tags": [],
    }


def actor_data(actor: Actor, workspace_id: str) -> dict[str, Any]:
    """Return the source as ``GET /sources/{id}`` returns it, the destination as ``GET /destinations/{id}`` does."""
    return {
        f"{actor.kind}Id": actor.id,
        "name": actor.name,
        f"{actor.kind}Type": actor.type,
        "definitionId": sample_id(f"{actor.kind} definition {actor.type}", 1),
        "workspaceId": workspace_id,
        "configuration": actor.configuration,
        "createdAt": 1_700_000_000,
    }


def workspace_data(workspace: Workspace, *, notifications: bool = True) -> dict[str, Any]:
    """Return the workspace as ``GET /workspaces/{id}`` returns it.

    :param notifications: whether this release's API has them.
    """
    data = {"workspaceId": workspace.id, "name": workspace.name, "dataResidency": "auto"}
    return {**data, "notifications": workspace.notifications} if notifications else data

"""How Airbyte writes its answers: jobs, times, durations, pages and three shapes of error."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from starlette.responses import JSONResponse

from .state import sample_id

if TYPE_CHECKING:
    from .state import Actor, Connection, Job, Workspace

_ERRORS_PAGE = "https://reference.airbyte.com/reference/errors"


class Problem(Exception):
    """A request that Airbyte answers with a problem document.

    :param status: the HTTP status.
    :param type: the tail of the document's ``type``, such as ``state-conflict``.
    :param message: what is wrong.
    """

    def __init__(self, status: int, type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.type = type

    def response(self) -> JSONResponse:
        return JSONResponse(
            {
                "title": self.type,
                "status": self.status,
                "detail": str(self),
                "type": f"{_ERRORS_PAGE}#{self.type}",
                "data": {"message": str(self)},
            },
            self.status,
        )


class FrameworkError(Exception):
    """A request that fails before it reaches Airbyte's own code: the web framework's shape of error.

    :param status: the HTTP status.
    :param message: the status phrase.
    :param details: what exactly is wrong.
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
    """A request that does not fit the API's description: a wrong type, a missing field, a value out of range."""
    return FrameworkError(400, "Bad Request", details)


def wrong_secret() -> JSONResponse:
    """The refusal of a client id or secret."""
    return JSONResponse({"errorId": str(uuid4())}, 401)


def java_time(moment: datetime) -> str:
    """As Java's ``OffsetDateTime`` prints itself: no seconds when they are zero, else 0, 3 or 6 digits after them."""
    moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
    if moment.microsecond:
        return moment.isoformat(timespec="microseconds" if moment.microsecond % 1000 else "milliseconds") + "Z"
    return moment.isoformat(timespec="seconds" if moment.second else "minutes") + "Z"


def java_instant(moment: datetime) -> str:
    """As Java's ``Instant`` prints itself, cut to whole seconds: the webhook's times."""
    return moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def java_duration(seconds: int) -> str:
    """As Java's ``Duration`` prints itself: ``PT1H2M3S``, ``PT0S``."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{number}{unit}" for number, unit in ((hours, "H"), (minutes, "M"), (rest, "S")) if number]
    return "PT" + ("".join(parts) or "0S")


def cut(moment: datetime, job_id: int) -> datetime:
    """The time at one of three precisions, by job id: seconds, milliseconds, microseconds. Releases differ in it."""
    step = (1_000_000, 1000, 1)[job_id % 3]
    return moment.replace(microsecond=moment.microsecond // step * step)


def job_data(job: Job) -> dict[str, Any]:
    """The job as ``GET /jobs`` and ``GET /jobs/{id}`` tell it."""
    data: dict[str, Any] = {
        "jobId": job.id,
        "status": job.status,
        "jobType": job.type,
        "startTime": java_time(cut(job.created_at, job.id)),
        "connectionId": job.connection.id,
    }
    if job.terminal:
        data["lastUpdatedAt"] = java_time(cut(job.updated_at, job.id))
    if job.status != "pending":
        data["duration"] = java_duration(int(job.updated_at.timestamp()) - int(job.created_at.timestamp()))
    if job.bytes is not None:
        data["bytesSynced"] = job.bytes
    if job.records is not None:
        data["rowsSynced"] = job.records
    return data


def connection_data(connection: Connection) -> dict[str, Any]:
    """The connection as ``GET /connections/{id}`` tells it."""
    return {
        "connectionId": connection.id,
        "name": connection.name,
        "sourceId": connection.source_id,
        "destinationId": connection.destination_id,
        "workspaceId": connection.workspace_id,
        "status": "active" if connection.active else "inactive",
        "schedule": {"scheduleType": "manual"},
        **connection.moves,
        "nonBreakingSchemaUpdatesBehavior": "ignore",
        "createdAt": int(connection.created_at.timestamp()),
        "tags": [],
    }


def actor_data(actor: Actor, workspace_id: str) -> dict[str, Any]:
    """The source as ``GET /sources/{id}`` tells it, the destination as ``GET /destinations/{id}`` does."""
    return {
        f"{actor.kind}Id": actor.id,
        "name": actor.name,
        f"{actor.kind}Type": actor.type,
        "definitionId": sample_id(f"{actor.kind} definition {actor.type}", 1),
        "workspaceId": workspace_id,
        "configuration": actor.configuration,
        "createdAt": 1_700_000_000,
    }


def workspace_data(workspace: Workspace) -> dict[str, Any]:
    """The workspace as ``GET /workspaces/{id}`` tells it."""
    return {
        "workspaceId": workspace.id,
        "name": workspace.name,
        "dataResidency": "auto",
        "notifications": workspace.notifications,
    }

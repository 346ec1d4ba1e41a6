"""Airbyte's public API: authorisation and responses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from airbyte_events.airbyte.notification_kinds import SETTINGS
from airbyte_events.simulator.listing import JOB_TYPES, Page, as_uuid, select_jobs, workspace_ids
from airbyte_events.simulator.models import Actor, Connection, Job, Refused, Release, Workspace
from airbyte_events.simulator.responses import (
    FrameworkError,
    Problem,
    actor_data,
    bad_request,
    connection_data,
    job_data,
    workspace_data,
    wrong_secret,
)
from airbyte_events.simulator.tokens import Tokens
from airbyte_events.simulator.world import World

T = TypeVar("T")

_OPEN = frozenset({"POST /applications/token", "GET /health"})
"""The routes that need no token."""


class PublicApi:
    """The routes of the public API, without delays and faults.

    :param admin: respond as to an instance admin: 409 for an unknown job, 404 for other unknown ids; else 403.
    :param simple_auth: refuse a wrong secret as Airbyte's simple authentication does: 400.
    """

    def __init__(self, world: World, tokens: Tokens, *, admin: bool, simple_auth: bool, release: Release) -> None:
        self._world = world
        self._tokens = tokens
        self._admin = admin
        self._simple_auth = simple_auth
        self._release = release
        self._routes: dict[str, Callable[[Request, bytes, str], Response]] = {
            "POST /applications/token": self._token,
            "GET /health": self._health,
            "POST /jobs": self._create_job,
            "GET /jobs": self._list_jobs,
            "GET /jobs/{id}": self._get_job,
            "DELETE /jobs/{id}": self._cancel_job,
            "GET /connections": self._list_connections,
            "GET /connections/{id}": self._get_connection,
            "GET /sources/{id}": self._get_source,
            "GET /destinations/{id}": self._get_destination,
            "GET /workspaces": self._list_workspaces,
            "GET /workspaces/{id}": self._get_workspace,
            "PATCH /workspaces/{id}": self._patch_workspace,
        }

    @property
    def routes(self) -> tuple[str, ...]:
        return tuple(self._routes)

    async def respond(self, request: Request, body: bytes, route: str, id: str) -> Response:
        """Carry the call out, at once: see :class:`~airbyte_events.simulator.middleware.Api`."""
        try:
            if route not in self._routes or (route == "POST /applications/token" and not self._tokens.required):
                raise FrameworkError(404, "Not Found", "Page Not Found")
            if route not in _OPEN and not self._tokens.admits(request.headers.get("authorization", "")):
                raise FrameworkError(401, "Unauthorized")
            return self._routes[route](request, body, id)
        except FrameworkError as exc:
            return exc.response(request.url.path)
        except Problem as exc:
            return exc.response()
        except Refused as exc:
            return Problem(409, exc.reason, str(exc)).response()

    def _token(self, request: Request, body: bytes, id: str) -> Response:
        given: dict[str, Any]
        if "json" in request.headers.get("content-type", "application/json"):
            given = json_object(body)
        else:
            given = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
        for name in ("client_id", "client_secret"):
            if not isinstance(given.get(name), str):
                raise bad_request(f"applicationTokenRequest.{name}: must not be null")
        token = self._tokens.issue(given["client_id"], given["client_secret"])
        if token is None:
            return wrong_secret(request.url.path, simple_auth=self._simple_auth)
        return JSONResponse(token)

    def _health(self, request: Request, body: bytes, id: str) -> Response:
        return PlainTextResponse("Successful operation")

    def _create_job(self, request: Request, body: bytes, id: str) -> Response:
        given = json_object(body)
        job_type = given.get("jobType")
        if job_type not in JOB_TYPES:
            raise bad_request(
                f"Failed to convert argument [jobCreateRequest]: no jobType is called {str(job_type)[:80]!r}"
            )
        connection = self._connection(as_uuid("connectionId", given.get("connectionId")))
        if job_type == "refresh":
            raise Problem(422, "unprocessable-entity", "Refresh jobs can't be created: the streams are not named")
        return JSONResponse(job_data(self._world.request_job(connection, job_type)))

    def _list_jobs(self, request: Request, body: bytes, id: str) -> Response:
        query = request.query_params
        page = Page.of(query)
        jobs = page.cut(select_jobs(self._world, query, refreshes=self._release.lists_refreshes))
        of = "connectionId" if query.get("connectionId") else "workspaceIds"
        kept = {name: query[name] for name in ("jobType", of) if query.get(name)}
        return JSONResponse(page.data("/jobs", [job_data(job) for job in jobs], kept))

    def _get_job(self, request: Request, body: bytes, id: str) -> Response:
        return JSONResponse(job_data(self._job(id)))

    def _cancel_job(self, request: Request, body: bytes, id: str) -> Response:
        named = self._job(id)
        # The id only selects the connection, whose current job is cancelled; the response has the job that was named.
        self._world.cancel_current(named.connection)
        return JSONResponse(job_data(named))

    def _list_connections(self, request: Request, body: bytes, id: str) -> Response:
        page, workspaces = Page.of(request.query_params), workspace_ids(request.query_params)
        connections = [
            connection
            for connection in self._world.connections.values()
            if not workspaces or connection.workspace_id in workspaces
        ]
        kept = {"workspaceIds": ",".join(workspaces)} if workspaces else {}
        return JSONResponse(page.data("/connections", [connection_data(one) for one in page.cut(connections)], kept))

    def _get_connection(self, request: Request, body: bytes, id: str) -> Response:
        return JSONResponse(connection_data(self._connection(as_uuid("connectionId", id))))

    def _get_source(self, request: Request, body: bytes, id: str) -> Response:
        return self._actor(self._world.sources, as_uuid("sourceId", id), "source")

    def _get_destination(self, request: Request, body: bytes, id: str) -> Response:
        return self._actor(self._world.destinations, as_uuid("destinationId", id), "destination")

    def _actor(self, actors: dict[str, Actor], id: str, kind: str) -> Response:
        actor = self._known(actors, id, kind)
        return JSONResponse(actor_data(actor, next(iter(self._world.workspaces))))

    def _list_workspaces(self, request: Request, body: bytes, id: str) -> Response:
        page, wanted = Page.of(request.query_params), workspace_ids(request.query_params)
        workspaces = [one for one in self._world.workspaces.values() if not wanted or one.id in wanted]
        kept = {"workspaceIds": ",".join(wanted)} if wanted else {}
        return JSONResponse(page.data("/workspaces", [self._workspace_data(one) for one in page.cut(workspaces)], kept))

    def _get_workspace(self, request: Request, body: bytes, id: str) -> Response:
        return JSONResponse(self._workspace_data(self._workspace(id)))

    def _workspace_data(self, workspace: Workspace) -> dict[str, Any]:
        return workspace_data(workspace, notifications=self._release.has_notifications)

    def _patch_workspace(self, request: Request, body: bytes, id: str) -> Response:
        workspace, given = self._workspace(id), json_object(body)
        notifications = given.get("notifications") or {}
        if not isinstance(notifications, dict) or not all(isinstance(one, dict) for one in notifications.values()):
            raise bad_request("Failed to convert argument [workspaceUpdateRequest]: notifications")
        merged = deepcopy(workspace.notifications)
        # Older releases have no such field, and ignore unknown fields.
        for kind, channels in notifications.items() if self._release.has_notifications else ():
            if kind in SETTINGS:
                for channel, settings in channels.items():
                    if isinstance(settings, dict):
                        merged.setdefault(kind, {}).setdefault(channel, {}).update(settings)
        for kind, channels in merged.items():
            webhook = channels.get("webhook", {})
            if webhook.get("enabled") and not webhook.get("url"):
                raise Problem(400, "bad-request", f"A webhook URL is required to enable {kind} webhook notifications")
        if isinstance(given.get("name"), str):
            workspace.name = given["name"]
        workspace.notifications = merged
        return JSONResponse(self._workspace_data(workspace))

    def _job(self, id: str) -> Job:
        if not re.fullmatch(r"-?\d{1,18}", id):
            raise bad_request(f"Failed to convert argument [jobId] for value [{id[:80]}]")
        job = self._world.jobs.get(int(id))
        if job is None:
            if not self._admin:
                raise _forbidden()
            raise Problem(409, "state-conflict", "Job is not currently running")
        return job

    def _connection(self, id: str) -> Connection:
        return self._known(self._world.connections, id, "connection")

    def _workspace(self, id: str) -> Workspace:
        return self._known(self._world.workspaces, as_uuid("workspaceId", id), "workspace")

    def _known(self, things: dict[str, T], id: str, name: str) -> T:
        if id in things:
            return things[id]
        if not self._admin:
            raise _forbidden()
        raise Problem(404, "resource-not-found", {"resourceType": name, "resourceId": id})


def _forbidden() -> Problem:
    return Problem(403, "forbidden", "You don't have permission to access this resource.")


def json_object(body: bytes) -> dict[str, Any]:
    """:raises FrameworkError: if the body is no JSON object."""
    try:
        given = json.loads(body)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise bad_request("Invalid JSON: Unexpected end-of-input or no object")
    return given

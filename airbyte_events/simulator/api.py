"""The routes of an API, and those of Airbyte's public API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, TypeVar
from urllib.parse import parse_qs

from starlette.datastructures import QueryParams
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
    not_found,
    workspace_data,
    wrong_secret,
)
from airbyte_events.simulator.tokens import Tokens
from airbyte_events.simulator.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Given:
    """A request, and the id in its path where the route has one."""

    request: Request
    body: bytes
    id: str

    @property
    def query(self) -> QueryParams:
        return self.request.query_params


class Api:
    """The routes of an API, without delays and faults.

    :param admin: respond as to an instance admin: 409 for an unknown job, 404 for other unknown ids; else 403.
    :param release: whose API it is: a route that it does not have is a 404.
    """

    routes: Mapping[str, Callable[[Given], Any]]
    """By name, such as ``GET /jobs/{id}``: what makes the response, or its JSON."""
    since: Mapping[str, Release] = {}
    """The releases that have a route."""
    open: Collection[str] = ()
    """The routes that need no token."""

    def __init__(self, world: World, tokens: Tokens, *, admin: bool, release: Release) -> None:
        self._world = world
        self._tokens = tokens
        self._admin = admin
        self._release = release

    async def respond(self, request: Request, body: bytes, route: str, id: str) -> Response:
        """Carry the call out.

        :param route: one of :attr:`routes`, or anything else: 404.
        """
        try:
            if route not in self.routes or self._release < self.since.get(route, self._release):
                raise not_found()
            if route not in self.open and not self._tokens.admits(request.headers.get("authorization", "")):
                raise FrameworkError(401, "Unauthorized")
            data = self.routes[route](Given(request, body, id))
            if isawaitable(data):
                data = await data
            return data if isinstance(data, Response) else JSONResponse(data)
        except FrameworkError as exc:
            return exc.response(request.url.path)
        except Problem as exc:
            return self._failed(exc)
        except Refused as exc:
            return self._failed(Problem(409, exc.reason, str(exc)))

    def _failed(self, problem: Problem) -> Response:
        return problem.response()


class PublicApi(Api):
    """The routes of the public API.

    :param simple_auth: refuse a wrong secret as Airbyte's simple authentication does: 400.
    """

    open = ("POST /applications/token", "GET /health")

    def __init__(self, world: World, tokens: Tokens, *, admin: bool, simple_auth: bool, release: Release) -> None:
        super().__init__(world, tokens, admin=admin, release=release)
        self._simple_auth = simple_auth
        self.routes = {
            "POST /applications/token": self._token,
            "GET /health": lambda _: PlainTextResponse("Successful operation"),
            "POST /jobs": self._create_job,
            "GET /jobs": self._list_jobs,
            "GET /jobs/{id}": lambda call: job_data(self._job(call.id)),
            "DELETE /jobs/{id}": self._cancel_job,
            "GET /connections": self._list_connections,
            "GET /connections/{id}": lambda call: connection_data(self._connection(call.id)),
            "GET /sources/{id}": lambda call: self._actor_data(world.sources, call.id, "source"),
            "GET /destinations/{id}": lambda call: self._actor_data(world.destinations, call.id, "destination"),
            "GET /workspaces": self._list_workspaces,
            "GET /workspaces/{id}": lambda call: self._workspace_data(self._workspace(call.id)),
            "PATCH /workspaces/{id}": self._patch_workspace,
        }

    def _token(self, call: Given) -> Response | dict[str, Any]:
        if not self._tokens.required:
            raise not_found()
        given: dict[str, Any]
        if "json" in call.request.headers.get("content-type", "application/json"):
            given = json_object(call.body)
        else:
            given = {name: values[0] for name, values in parse_qs(call.body.decode(errors="replace")).items()}
        for name in ("client_id", "client_secret"):
            if not isinstance(given.get(name), str):
                raise bad_request(f"applicationTokenRequest.{name}: must not be null")
        token = self._tokens.issue(given["client_id"], given["client_secret"])
        return wrong_secret(call.request.url.path, simple_auth=self._simple_auth) if token is None else token

    def _create_job(self, call: Given) -> dict[str, Any]:
        given = json_object(call.body)
        job_type = given.get("jobType")
        if job_type not in JOB_TYPES:
            raise bad_request(
                f"Failed to convert argument [jobCreateRequest]: no jobType is called {str(job_type)[:80]!r}"
            )
        connection = self._connection(given.get("connectionId"))
        if job_type == "refresh":
            raise Problem(422, "unprocessable-entity", "Refresh jobs can't be created: the streams are not named")
        return job_data(self._world.request_job(connection, job_type))

    def _list_jobs(self, call: Given) -> dict[str, Any]:
        page = Page.of(call.query)
        jobs = page.cut(select_jobs(self._world, call.query, refreshes=self._release.lists_refreshes))
        of = "connectionId" if call.query.get("connectionId") else "workspaceIds"
        kept = {name: call.query[name] for name in ("jobType", of) if call.query.get(name)}
        return page.data("/jobs", [job_data(job) for job in jobs], kept)

    def _cancel_job(self, call: Given) -> dict[str, Any]:
        named = self._job(call.id)
        # The id only selects the connection, whose current job is cancelled; the response has the job that was named.
        self._world.cancel_current(named.connection)
        return job_data(named)

    def _list_connections(self, call: Given) -> dict[str, Any]:
        of_workspace = ((one, one.workspace_id) for one in self._world.connections.values())
        return _list("/connections", call.query, of_workspace, connection_data)

    def _list_workspaces(self, call: Given) -> dict[str, Any]:
        by_id = ((one, one.id) for one in self._world.workspaces.values())
        return _list("/workspaces", call.query, by_id, self._workspace_data)

    def _actor_data(self, actors: dict[str, Actor], id: str, kind: str) -> dict[str, Any]:
        actor = self._known(actors, as_uuid(f"{kind}Id", id), kind)
        return actor_data(actor, next(iter(self._world.workspaces)))

    def _workspace_data(self, workspace: Workspace) -> dict[str, Any]:
        return workspace_data(workspace, notifications=self._release.has_notifications)

    def _patch_workspace(self, call: Given) -> dict[str, Any]:
        workspace, given = self._workspace(call.id), json_object(call.body)
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
        return self._workspace_data(workspace)

    def _job(self, id: str) -> Job:
        if not re.fullmatch(r"-?\d{1,18}", id):
            raise bad_request(f"Failed to convert argument [jobId] for value [{id[:80]}]")
        job = self._world.jobs.get(int(id))
        if job is None:
            if not self._admin:
                raise _forbidden()
            raise Problem(409, "state-conflict", "Job is not currently running")
        return job

    def _connection(self, id: object) -> Connection:
        return self._known(self._world.connections, as_uuid("connectionId", id), "connection")

    def _workspace(self, id: str) -> Workspace:
        return self._known(self._world.workspaces, as_uuid("workspaceId", id), "workspace")

    def _known(self, things: dict[str, T], id: str, name: str) -> T:
        if id in things:
            return things[id]
        if not self._admin:
            raise _forbidden()
        raise Problem(404, "resource-not-found", {"resourceType": name, "resourceId": id})


def _list(
    path: str, query: QueryParams, things: Iterable[tuple[T, str]], data: Callable[[T], dict[str, Any]]
) -> dict[str, Any]:
    """Return a page of things, each with its workspace, of the workspaces in the query."""
    page, workspaces = Page.of(query), workspace_ids(query)
    chosen = [thing for thing, workspace_id in things if not workspaces or workspace_id in workspaces]
    kept = {"workspaceIds": ",".join(workspaces)} if workspaces else {}
    return page.data(path, [data(thing) for thing in page.cut(chosen)], kept)


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

"""The control API under ``/_simulator``: starts and completes jobs, injects faults, and lists what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airbyte_events._utils.times import format_time
from airbyte_events.airbyte.notification_kinds import SETTINGS
from airbyte_events.simulator.control_models import (
    ConnectionChange,
    InvalidRequest,
    JobEnd,
    JobsEnd,
    NewConnections,
    NewJobs,
    NewNotification,
    NewWorkspace,
    WebhookTarget,
    parse,
)
from airbyte_events.simulator.faults import Fault
from airbyte_events.simulator.middleware import CONTROL
from airbyte_events.simulator.models import Connection, Job, Refused
from airbyte_events.simulator.responses import connection_data, workspace_data
from airbyte_events.simulator.scripts import Script
from airbyte_events.simulator.simulator import Simulator


class ControlApi:
    """The routes of the control API of a simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._sim = simulator
        self._world = simulator.world

    def routes(self) -> Iterator[Route]:
        for method, path, endpoint in (
            ("GET", "", self.overview),
            ("GET", "/connections", self.connections),
            ("POST", "/connections", self.create_connections),
            ("PATCH", "/connections/{id}", self.change_connection),
            ("DELETE", "/connections/{id}", self.delete_connection),
            ("POST", "/workspaces", self.create_workspace),
            ("GET", "/jobs", self.jobs),
            ("POST", "/jobs", self.create_jobs),
            ("POST", "/jobs/end", self.end_jobs),
            ("GET", "/jobs/{id:int}", self.job),
            ("POST", "/jobs/{id:int}/end", self.end_job),
            ("PUT", "/jobs/{id:int}/script", self.play_script),
            ("GET", "/webhooks", self.webhooks),
            ("PUT", "/webhooks", self.set_webhook),
            ("POST", "/notifications", self.notify),
            ("GET", "/faults", self.faults),
            ("POST", "/faults", self.add_fault),
            ("DELETE", "/faults", self.clear_faults),
            ("DELETE", "/faults/{id:int}", self.clear_faults),
            ("POST", "/tokens/expire", self.expire_tokens),
            ("GET", "/requests", self.requests),
            ("DELETE", "/requests", self.clear_requests),
        ):
            yield Route(CONTROL + path, endpoint, methods=[method])

    async def overview(self, request: Request) -> Response:
        return JSONResponse(
            {
                **self._sim.describe(),
                "connections": len(self._world.connections),
                "jobs": Counter(job.status for job in self._world.jobs.values()),
                "webhooks": self._sim.webhooks.counts,
                "faults": len(self._sim.faults.armed()),
                "requests": self._sim.traffic.total,
            }
        )

    async def connections(self, request: Request) -> Response:
        return JSONResponse({"connections": [_connection(one) for one in self._world.connections.values()]})

    async def create_connections(self, request: Request) -> Response:
        given = parse(NewConnections, await request.body())
        script = given.chosen_script() or self._sim.script
        workspace_id = str(given.workspace_id) if given.workspace_id else None
        if workspace_id is not None and workspace_id not in self._world.workspaces:
            raise InvalidRequest(404, f"there is no workspace {workspace_id}")
        made = [
            self._world.add_connection(
                script,
                name=given.name if given.count == 1 or given.name is None else f"{given.name} {number}",
                id=str(given.connection_id) if given.connection_id else None,
                workspace_id=workspace_id,
                active=given.active,
            )
            for number in range(1, given.count + 1)
        ]
        jobs = [self._world.start_job(connection, given.job_type) for connection in made] if given.start else []
        created = {"connection_ids": [one.id for one in made], "job_ids": [job.id for job in jobs]}
        return JSONResponse(created, 201)

    async def change_connection(self, request: Request) -> Response:
        connection = self._connection(request.path_params["id"])
        given = parse(ConnectionChange, await request.body())
        connection.script = given.chosen_script() or connection.script
        connection.active = connection.active if given.active is None else given.active
        connection.name = given.name or connection.name
        if given.next_scripts is not None:
            connection.next_scripts.clear()
            connection.next_scripts.extend(given.next_scripts)
        return JSONResponse(_connection(connection))

    async def delete_connection(self, request: Request) -> Response:
        self._world.delete_connection(self._connection(request.path_params["id"]))
        return Response(status_code=204)

    async def create_workspace(self, request: Request) -> Response:
        given = parse(NewWorkspace, await request.body())
        url = None if given.webhook_url is None else _web_url(given.webhook_url)
        workspace_id = str(given.workspace_id) if given.workspace_id else None
        if workspace_id in self._world.workspaces:
            raise Refused("state-conflict", f"there is a workspace {workspace_id} already")
        workspace = self._world.add_workspace(given.name, workspace_id)
        if url is not None:
            workspace.set_webhook(url)
        return JSONResponse(workspace_data(workspace), 201)

    async def jobs(self, request: Request) -> Response:
        query = request.query_params
        jobs = (
            job
            for job in self._world.jobs.values()
            if query.get("connection_id") in (None, job.connection.id) and query.get("status") in (None, job.status)
        )
        return JSONResponse({"jobs": [_job(job) for job in jobs]})

    async def create_jobs(self, request: Request) -> Response:
        given = parse(NewJobs, await request.body())
        ids = given.connection_ids or (given.connection_id,)
        connections = [self._connection(str(one)) for one in ids]
        for connection in connections:
            if connection.current is not None:
                raise Refused("try-again-later", f"job {connection.current.id} of connection {connection.id} is active")
        if len(set(ids)) < len(ids):
            raise InvalidRequest(422, "connection_ids: a connection can't have two jobs at a time")
        script = given.chosen_script()
        jobs = [self._world.start_job(one, given.job_type, script, given.created_at) for one in connections]
        return JSONResponse({"job_ids": [job.id for job in jobs]}, 201)

    async def job(self, request: Request) -> Response:
        return JSONResponse(_job(self._job(request)))

    async def end_job(self, request: Request) -> Response:
        job, given = self._job(request), parse(JobEnd, await request.body())
        self._world.end_job(job, given.status, **given.values())
        return JSONResponse(_job(job))

    async def end_jobs(self, request: Request) -> Response:
        given = parse(JobsEnd, await request.body())
        ended, not_ended = [], {}
        for job_id in given.job_ids:
            job = self._world.jobs.get(job_id)
            if job is None or job.terminal:
                not_ended[str(job_id)] = "there is no such job" if job is None else f"it has ended: {job.status}"
            else:
                self._world.end_job(job, given.status, **given.values())
                ended.append(job_id)
        return JSONResponse({"ended": ended, "not_ended": not_ended})

    async def play_script(self, request: Request) -> Response:
        job = self._job(request)
        self._world.play(job, parse(Script, await request.body()))
        return JSONResponse(_job(job))

    async def webhooks(self, request: Request) -> Response:
        recent = [delivery.data() for delivery in reversed(self._sim.webhooks.recent)]
        return JSONResponse({"counts": self._sim.webhooks.counts, "recent": recent})

    async def set_webhook(self, request: Request) -> Response:
        given = parse(WebhookTarget, await request.body())
        url = None if given.url is None else _web_url(given.url)
        workspaces = list(self._world.workspaces.values())
        if given.workspace_id is not None:
            workspaces = [one for one in workspaces if one.id == str(given.workspace_id)]
            if not workspaces:
                raise InvalidRequest(404, f"there is no workspace {given.workspace_id}")
        for workspace in workspaces:
            workspace.set_webhook(url, given.kinds or SETTINGS)
        return JSONResponse({"workspaces": [workspace_data(one) for one in workspaces]})

    async def notify(self, request: Request) -> Response:
        given = parse(NewNotification, await request.body())
        if given.url is not None:
            _web_url(given.url)
        job = None if given.job_id is None else self._known_job(given.job_id)
        connection = None if given.connection_id is None else self._connection(str(given.connection_id))
        deliveries = self._sim.notify(given, job, connection)
        if given.wait:
            for delivery in deliveries:
                await delivery.over.wait()
        return JSONResponse({"deliveries": [delivery.data() for delivery in deliveries]})

    async def faults(self, request: Request) -> Response:
        return JSONResponse({"faults": [armed.data() for armed in self._sim.faults.armed()]})

    async def add_fault(self, request: Request) -> Response:
        fault = parse(Fault, await request.body())
        try:
            return JSONResponse(self._sim.add_fault(fault).data(), 201)
        except ValueError as exc:
            raise InvalidRequest(422, str(exc)) from exc

    async def clear_faults(self, request: Request) -> Response:
        return JSONResponse({"cleared": self._sim.faults.clear(request.path_params.get("id"))})

    async def expire_tokens(self, request: Request) -> Response:
        return JSONResponse({"expired": self._sim.tokens.expire()})

    async def requests(self, request: Request) -> Response:
        query, traffic = request.query_params, self._sim.traffic
        try:
            job_id = int(query["job_id"]) if "job_id" in query else None
            limit = int(query.get("limit", 1000))
        except ValueError:
            raise InvalidRequest(422, "job_id and limit are numbers") from None
        return JSONResponse(
            {
                "total": traffic.total,
                "counts": traffic.counts,
                "working": traffic.working,
                "waiting": traffic.waiting,
                "recent": [call.data() for call in islice(traffic.recent(query.get("route"), job_id), max(0, limit))],
            }
        )

    async def clear_requests(self, request: Request) -> Response:
        self._sim.traffic.clear()
        return Response(status_code=204)

    def _connection(self, id: str) -> Connection:
        if id not in self._world.connections:
            raise InvalidRequest(404, f"there is no connection {id}")
        return self._world.connections[id]

    def _job(self, request: Request) -> Job:
        return self._known_job(request.path_params["id"])

    def _known_job(self, id: int) -> Job:
        if id not in self._world.jobs:
            raise InvalidRequest(404, f"there is no job {id}")
        return self._world.jobs[id]


def _web_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise InvalidRequest(422, "url: a webhook URL begins with http:// or https://")
    return url


def _connection(connection: Connection) -> dict[str, Any]:
    current = connection.current.id if connection.current is not None else None
    return {**connection_data(connection), "jobs": len(connection.jobs), "currentJobId": current}


def _job(job: Job) -> dict[str, Any]:
    error = job.error
    return {
        "job_id": job.id,
        "connection_id": job.connection.id,
        "workspace_id": job.connection.workspace_id,
        "job_type": job.type,
        "status": job.status,
        "created_at": format_time(job.created_at),
        "committed_at": format_time(job.ended_at),
        "attempts": len(job.attempts),
        "records": job.records,
        "bytes": job.bytes,
        "error": None if error is None else error.data(),
        "cancelled_by": job.cancelled_by,
        "history": [{"status": status, "at": format_time(at)} for status, at in job.history],
        "webhooks": [delivery.data() for delivery in job.deliveries],
    }

"""Middleware of both APIs: logs every call, limits those in progress, and injects faults."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection

import anyio
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from airbyte_events._utils import json_values
from airbyte_events.simulator.api import Api
from airbyte_events.simulator.broken_responses import BrokenResponse
from airbyte_events.simulator.faults import API_FAULTS, ArmedFault, Faults
from airbyte_events.simulator.responses import FrameworkError, Problem, rate_limited
from airbyte_events.simulator.traffic import Call, Traffic

CONTROL = "/_simulator"
"""Base path of the control API."""

BASES = ("/api/public/v1", "/v1")
"""Base paths of the public API: self-hosted, and on Airbyte Cloud."""

INTERNAL = "/api/v1"
"""Base path of the internal API."""


class Gate:
    """The ASGI application of an API.

    :param latency: seconds that every call takes.
    :param max_calls: calls in progress at a time; the next one waits.
    """

    def __init__(
        self, api: Api, bases: Collection[str], faults: Faults, traffic: Traffic, *, latency: float, max_calls: int
    ) -> None:
        self._api = api
        self._bases = bases
        self._faults = faults
        self._traffic = traffic
        self._latency = latency
        self._places = anyio.Semaphore(max_calls)
        self.shutdown = anyio.Event()
        """Set at shutdown, to end delays."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = next(request.url.path[len(base) :] for base in self._bases if request.url.path.startswith(base))
        route, named = self._route(request.method, path)
        job_id = int(named) if path.startswith("/jobs/") and re.fullmatch(r"[0-9]{1,18}", named) else None
        call = self._traffic.arrived(request.method, route, path, request.url.query, job_id)
        body = await request.body()
        if route == "POST /jobs/get_without_logs":
            with contextlib.suppress(ValueError):
                call.job_id = json_values.job_id(json_values.parse_object(body).get("id"))
        response = await self._respond(request, body, route, named, call)
        call.status = None if isinstance(response, BrokenResponse) else response.status_code
        call.seconds = anyio.current_time() - call.monotonic
        await response(scope, receive, send)

    def _route(self, method: str, path: str) -> tuple[str, str]:
        """Return the route's name and the id in the path: ``("GET /jobs/{id}", "17")``."""
        head, _, named = path[1:].partition("/")
        for route in (f"{method} {path}", f"{method} /{head}/{{id}}"):
            if route in self._api.routes:
                return route, named if route.endswith("{id}") else ""
        return f"{method} (unknown)", ""

    async def _respond(self, request: Request, body: bytes, route: str, named: str, call: Call) -> Response:
        struck = self._faults.strike(API_FAULTS, route, frozenset(request.query_params), call.path)
        call.faults = tuple(armed.id for armed in struck)
        spoiler = next((armed for armed in struck if armed.fault.kind != "slow"), None)
        if spoiler is not None and not spoiler.fault.after and spoiler.fault.kind != "truncated":
            return _spoilt(spoiler, None)
        delay = self._latency + sum(armed.fault.delay or 0.0 for armed in struck if armed.fault.kind == "slow")
        self._traffic.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._traffic.waiting -= 1
        self._traffic.working += 1
        try:
            # A call takes effect first: a job can run long before its caller gets the response, if ever.
            response = None if request.method == "GET" else await self._api.respond(request, body, route, named)
            if delay:
                with anyio.move_on_after(delay):
                    await self.shutdown.wait()
            if response is None:
                response = await self._api.respond(request, body, route, named)
        finally:
            self._traffic.working -= 1
            self._places.release()
        return response if spoiler is None else _spoilt(spoiler, response)


def _spoilt(armed: ArmedFault, response: Response | None) -> Response:
    """Return the fault's response instead of the true one (None: the call was not carried out)."""
    fault = armed.fault
    if fault.kind in ("reset", "truncated"):
        return BrokenResponse(response if fault.kind == "truncated" else None)
    if fault.kind == "html":
        return HTMLResponse("<!doctype html><title>Sign in</title><p>Please sign in.", fault.status or 200)
    if fault.kind == "empty":
        return Response(status_code=fault.status or 200)
    status = fault.status or 500
    if status == 401:
        return FrameworkError(401, "Unauthorized").response("/")
    if status == 429:
        return rate_limited()
    title = fault.problem or _TITLES.get(status, "unexpected-problem")
    # The message of releases since 2026-06 if no job was created within 60 s.
    message = "Could not fulfill request" if title == "state-conflict" else f"The simulator's {status} fault"
    return Problem(status, title, message).response()


_TITLES = {
    400: "bad-request",
    403: "forbidden",
    404: "resource-not-found",
    409: "try-again-later",
    422: "unprocessable-entity",
}

"""The listener's ASGI application: routes, health, who may come in."""

from __future__ import annotations

import json
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from airbyte_events import __version__
from airbyte_events.errors import StoreError
from airbyte_events.listener.http.api import API
from airbyte_events.listener.http.dashboard import Dashboard
from airbyte_events.listener.http.metrics import MetricsPage
from airbyte_events.listener.http.openapi import DOCUMENT
from airbyte_events.listener.http.receiver import not_found
from airbyte_events.listener.http.status import Status
from airbyte_events.web.auth import BearerAuth, Tokens
from airbyte_events.web.rate_limit import ClientAccess, ConcurrencyLimit
from airbyte_events.web.security_headers import SecurityHeaders
from airbyte_events.web.sessions import Sessions

MOST_REQUESTS = 1_500
"""Requests of ``/v1`` that are under way at a time: streams are, for as long as they are open. The server has more
connections than that, so that webhooks and the health check find one."""

_DOCUMENT = json.dumps(DOCUMENT, ensure_ascii=False).encode()


def requests_for(connections: int) -> int:
    """How many requests of ``/v1`` may be under way.

    :param connections: how many the server has.
    """
    return max(1, min(MOST_REQUESTS, connections // 2))


def streams_of(requests: int) -> int:
    """How many of them may be streams: those are refused first, and who waits for a page or asks for jobs is not."""
    return max(1, requests - max(1, requests // 15))


Readiness = Callable[[], "dict[str, str]"]
"""What is not ready, by part; empty when all is."""


def create_app(
    api: API,
    status: Status | None,
    metrics: MetricsPage | None,
    receiver: ASGIApp | None,
    api_tokens: Tokens,
    unready: Readiness,
    access: ClientAccess | None = None,
    *,
    hopeless: Callable[[], bool] = bool,
    metrics_tokens: Tokens | None = None,
    most_requests: int = MOST_REQUESTS,
) -> ASGIApp:
    """The application with all routes.

    :param receiver: None where it has an address of its own.
    :param unready: asked by ``/readyz``.
    :param access: who was refused how often.
    :param hopeless: asked by ``/healthz``: whether a restart is worth trying.
    :param metrics_tokens: what opens ``/metrics``; None: it is open.
    :param most_requests: see :data:`MOST_REQUESTS`.
    """
    access = access or ClientAccess()

    async def healthz(request: Request) -> Response:
        if hopeless():
            return JSONResponse({"status": "the store can't be written", "version": __version__}, status_code=503)
        return JSONResponse({"status": "ok", "version": __version__})

    async def readyz(request: Request) -> Response:
        faults = unready()
        return JSONResponse(
            {"status": "not ready" if faults else "ready", "faults": faults}, status_code=503 if faults else 200
        )

    async def openapi(request: Request) -> Response:
        return Response(_DOCUMENT, media_type="application/json")

    sessions = Sessions(api_tokens)
    guards = [
        Middleware(BearerAuth, tokens=api_tokens, access=access, known=sessions.admit),
        Middleware(ConcurrencyLimit, most=most_requests),
    ]
    scraping = []
    if metrics_tokens is not None:
        scraping = [Middleware(BearerAuth, tokens=metrics_tokens, access=access, kind="metrics")]
    v1 = Router([*api.routes, *([status.route] if status else [])], redirect_slashes=False, middleware=guards)
    routes: list[BaseRoute] = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/openapi.json", openapi),
        Mount("/v1", v1),
        *([Route("/metrics", metrics.tell, middleware=scraping)] if metrics else []),
        *Dashboard(sessions, access).routes,
    ]

    async def refused(request: Request, exc: Exception) -> Response:
        if isinstance(exc, HTTPException) and exc.status_code not in (404, 405):
            return JSONResponse({"error": exc.detail}, status_code=exc.status_code)
        known = request.scope.get("path", "").startswith("/v1/")  # who gets there has shown a token
        return not_found() if known else access.refuse(request.scope, not_found())

    others = Starlette(
        routes=routes,
        exception_handlers={HTTPException: refused, StoreError: _unavailable, ClientDisconnect: _gone},
    )
    others.router.redirect_slashes = False
    if receiver is None:
        return SecurityHeaders(others)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        webhook = scope["type"] == "http" and scope["path"].startswith("/webhooks/")
        await (receiver if webhook else others)(scope, receive, send)

    return SecurityHeaders(app)


async def _gone(request: Request, exc: Exception) -> Response:
    return Response(status_code=400)


async def _unavailable(request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": "the event store is unavailable"}, status_code=503, headers={"Retry-After": "5"})

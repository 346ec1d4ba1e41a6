"""The listener's ASGI application: routes, health checks, authorization."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

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
from airbyte_events.listener.http.params import QueryError
from airbyte_events.listener.http.receiver import not_found
from airbyte_events.listener.http.status import Status
from airbyte_events.listener.http.viewers import CountViewers, Viewers
from airbyte_events.web.auth import BearerAuth, Tokens
from airbyte_events.web.rate_limit import ClientAccess, ConcurrencyLimit
from airbyte_events.web.security_headers import SecurityHeaders
from airbyte_events.web.sessions import Sessions

MOST_REQUESTS = 1_500
"""Concurrent requests of ``/v1``, open streams included. The server has more connections than that, for webhooks and
health checks."""

_DOCUMENT = json.dumps(DOCUMENT, ensure_ascii=False).encode()


def requests_for(connections: int) -> int:
    """Return the limit of concurrent requests of ``/v1`` for a server with so many connections."""
    return max(1, min(MOST_REQUESTS, connections // 2))


def streams_of(requests: int) -> int:
    """Return the limit of open streams: lower than that of requests, so that streams are refused first."""
    return max(1, requests - max(1, requests // 15))


def create_app(
    api: API,
    status: Status | None,
    metrics: MetricsPage | None,
    receiver: ASGIApp | None,
    api_tokens: Tokens,
    faults: Callable[[], dict[str, str]],
    access: ClientAccess | None = None,
    *,
    hopeless: Callable[[], bool] = bool,
    metrics_tokens: Tokens | None = None,
    most_requests: int = MOST_REQUESTS,
    sessions: Sessions | None = None,
    viewers: Viewers | None = None,
) -> ASGIApp:
    """Return the application with all routes.

    :param receiver: None if it has its own address.
    :param faults: returns why the listener is not ready, by part; used by ``/readyz``.
    :param hopeless: returns whether only a restart can help; used by ``/healthz``.
    :param metrics_tokens: the tokens for ``/metrics``; None if it is public.
    :param viewers: counts the requests of ``/v1``.
    """
    access = access or ClientAccess()

    async def healthz(request: Request) -> Response:
        if hopeless():
            return JSONResponse({"status": "the store can't be written", "version": __version__}, status_code=503)
        return JSONResponse({"status": "ok", "version": __version__})

    async def readyz(request: Request) -> Response:
        found = faults()
        return JSONResponse({"status": "not ready" if found else "ready", "faults": found}, 503 if found else 200)

    async def openapi(request: Request) -> Response:
        return Response(_DOCUMENT, media_type="application/json")

    sessions = sessions or Sessions(api_tokens)
    dashboard = Dashboard(sessions, access, api.operators)
    guards = [
        Middleware(BearerAuth, tokens=api_tokens, access=access, has_session=sessions.authorizes),
        Middleware(ConcurrencyLimit, most=most_requests),
        *([Middleware(CountViewers, viewers=viewers)] if viewers else []),
    ]
    scraping = []
    if metrics_tokens is not None:
        scraping = [Middleware(BearerAuth, tokens=metrics_tokens, access=access, kind="metrics")]
    v1 = Router(
        [*api.routes, *([Route("/status", status.page)] if status else [])], redirect_slashes=False, middleware=guards
    )
    routes: list[BaseRoute] = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/openapi.json", openapi),
        Mount("/v1", v1),
        *([Route("/metrics", metrics.page, middleware=scraping)] if metrics else []),
        *dashboard.routes,
    ]

    errors = (HTTPException, QueryError, StoreError, ClientDisconnect)
    others = Starlette(routes=routes, exception_handlers=dict.fromkeys(errors, partial(_refused, access, dashboard)))
    others.router.redirect_slashes = False
    if receiver is None:
        return SecurityHeaders(others)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        webhook = scope["type"] == "http" and scope["path"].startswith("/webhooks/")
        await (receiver if webhook else others)(scope, receive, send)

    return SecurityHeaders(app)


async def _refused(access: ClientAccess, dashboard: Dashboard, request: Request, exc: Exception) -> Response:
    if isinstance(exc, QueryError):
        return JSONResponse({"error": str(exc)}, status_code=400)
    if isinstance(exc, StoreError):
        return JSONResponse({"error": "the event store is unavailable"}, 503, {"Retry-After": "5"})
    if isinstance(exc, ClientDisconnect):
        return Response(status_code=400)
    if isinstance(exc, HTTPException) and exc.status_code not in (404, 405):
        return JSONResponse({"error": exc.detail}, status_code=exc.status_code)
    authorized = request.scope.get("path", "").startswith("/v1/")  # BearerAuth comes first
    return not_found() if authorized else access.refuse(request.scope, dashboard.missing(request) or not_found())

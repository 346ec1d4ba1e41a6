"""The listener's ASGI application: routes, health, who may come in."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from airbyte_events import __version__
from airbyte_events.api import API
from airbyte_events.auth import BearerAuth, Tokens
from airbyte_events.errors import StoreError
from airbyte_events.webhook import Receiver, not_found

Readiness = Callable[[], "dict[str, str]"]
"""What is not ready, by part; empty when all is."""


def create_app(api: API, receiver: Receiver | None, api_tokens: Tokens, unready: Readiness) -> ASGIApp:
    """The application with all routes.

    :param receiver: None where it has an address of its own.
    :param unready: asked by ``/readyz``.
    """

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__})

    async def readyz(request: Request) -> Response:
        faults = unready()
        return JSONResponse(
            {"status": "not ready" if faults else "ready", "faults": faults}, status_code=503 if faults else 200
        )

    v1 = Router(api.routes, redirect_slashes=False, middleware=[Middleware(BearerAuth, tokens=api_tokens)])
    routes: list[BaseRoute] = [Route("/healthz", healthz), Route("/readyz", readyz), Mount("/v1", v1)]
    others = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _refused, StoreError: _unavailable, ClientDisconnect: _gone},
    )
    others.router.redirect_slashes = False
    if receiver is None:
        return others

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        webhook = scope["type"] == "http" and scope["path"].startswith("/webhooks/")
        await (receiver if webhook else others)(scope, receive, send)

    return app


async def _refused(request: Request, exc: Exception) -> Response:
    if isinstance(exc, HTTPException) and exc.status_code not in (404, 405):
        return JSONResponse({"error": exc.detail}, status_code=exc.status_code)
    return not_found()


async def _gone(request: Request, exc: Exception) -> Response:
    return Response(status_code=400)


async def _unavailable(request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": "the event store is unavailable"}, status_code=503, headers={"Retry-After": "5"})

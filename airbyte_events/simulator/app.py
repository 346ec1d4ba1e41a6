"""The simulator's ASGI application: the public, the internal and the control API on one address."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airbyte_events.simulator.control import ControlApi
from airbyte_events.simulator.control_models import InvalidRequest
from airbyte_events.simulator.middleware import BASES, CONTROL, INTERNAL
from airbyte_events.simulator.models import Refused
from airbyte_events.simulator.responses import FrameworkError
from airbyte_events.simulator.simulator import Simulator

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def simulator_app(simulator: Simulator) -> Starlette:
    """Return the application. Its lifespan enters :meth:`Simulator.running`."""
    public = [Route(base + "/{path:path}", simulator.gate, methods=_METHODS) for base in BASES]
    internal = Route(INTERNAL + "/{path:path}", simulator.internal_gate, methods=_METHODS)
    app = Starlette(
        routes=[*ControlApi(simulator).routes(), *public, internal],
        exception_handlers={HTTPException: _http_error, InvalidRequest: _refused, Refused: _refused},
        lifespan=lambda _: simulator.running(),
    )
    app.router.redirect_slashes = False
    return app


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # noqa: S101 -- for the type checker
    if request.url.path.startswith(CONTROL):
        return JSONResponse({"error": f"{request.method} {request.url.path}: {exc.detail}"}, exc.status_code)
    return FrameworkError(exc.status_code, exc.detail, "Page Not Found").response(request.url.path)


async def _refused(request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": str(exc)}, exc.status if isinstance(exc, InvalidRequest) else 409)

"""The dashboard: pages that scripts make of what the API answers, and the session by which a browser may ask it.

The pages themselves hold no data, so anybody may load them. No file of theirs comes from elsewhere, and none is built.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from airbyte_events.web.rate_limit import ClientAccess
from airbyte_events.web.sessions import LIFETIME_SECONDS, Sessions, cookie_of, from_elsewhere

PAGES = (
    "/",
    "/jobs",
    "/jobs/{instance}/{job_id}",
    "/connections",
    "/connections/{instance}/{connection_id}",
    "/inbox",
    "/forwarding",
    "/system",
)
"""The addresses that people can be sent."""

_FILES = Path(__file__).parent / "static"
_LARGEST_LOGIN = 4096


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        # Asked for again each time, and answered 304: an upgrade must not meet scripts of before.
        response.headers["Cache-Control"] = "no-cache"
        return response


class Dashboard:
    """:param sessions: who is logged in.
    :param access: who was refused how often.
    """

    def __init__(self, sessions: Sessions, access: ClientAccess) -> None:
        self._sessions = sessions
        self._access = access
        self._page = (_FILES / "index.html").read_text(encoding="utf-8")

    @property
    def routes(self) -> list[BaseRoute]:
        return [
            *(Route(path, self.page, include_in_schema=False) for path in PAGES),
            Mount("/static", _Files(directory=_FILES)),
            Route("/session", self.session, methods=["GET"], include_in_schema=False),
            Route("/session", self.log_in, methods=["POST"], include_in_schema=False),
            Route("/session", self.log_out, methods=["DELETE"], include_in_schema=False),
        ]

    async def page(self, request: Request) -> Response:
        """The one page, whose script draws what its address says."""
        root = html.escape(f"{request.scope.get('root_path', '')}/")
        return HTMLResponse(
            self._page.replace('<base href="/">', f'<base href="{root}">'), headers={"Cache-Control": "no-cache"}
        )

    async def session(self, request: Request) -> Response:
        """Whether the browser is logged in."""
        return JSONResponse({"signed_in": self._sessions.shown(request)})

    async def log_in(self, request: Request) -> Response:
        """Exchange an API token for a session."""
        if from_elsewhere(request):
            return JSONResponse({"error": "a page of another site can't log in"}, status_code=403)
        session = self._sessions.begin(await _token(request))
        if session is None:
            refusal = JSONResponse({"error": "unauthorized", "message": "not an API token"}, status_code=401)
            return self._access.refuse(request.scope, refusal)
        response = JSONResponse({"signed_in": True})
        response.set_cookie(cookie_of(request), session, max_age=LIFETIME_SECONDS, **_attributes(request))
        return response

    async def log_out(self, request: Request) -> Response:
        """Have the browser forget its session."""
        if from_elsewhere(request):
            return JSONResponse({"error": "a page of another site can't log out"}, status_code=403)
        response = JSONResponse({"signed_in": False})
        response.delete_cookie(cookie_of(request), **_attributes(request))
        return response


def _attributes(request: Request) -> dict[str, Any]:
    # The browser knows that it came by HTTPS where a proxy in front ends it.
    secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    return {
        "path": f"{request.scope.get('root_path', '')}/",
        "secure": secure,
        "httponly": True,
        "samesite": "strict",
    }


async def _token(request: Request) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_LOGIN:
            return ""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    token = given.get("token") if isinstance(given, dict) else None
    return token if isinstance(token, str) else ""

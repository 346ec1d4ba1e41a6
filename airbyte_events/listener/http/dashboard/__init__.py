"""The dashboard: static pages that show the API's data, and the session that authorizes a browser.

The pages contain no data, so they are public. They load no file from another site and need no build step.
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
from airbyte_events.web.sessions import LIFETIME_SECONDS, Sessions, cookie_of, is_cross_site

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
"""The paths of the pages."""

_FILES = Path(__file__).parent / "static"
_LARGEST_LOGIN = 4096


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        # Revalidated each time, usually with a 304: after an upgrade, old scripts must not run.
        response.headers["Cache-Control"] = "no-cache"
        return response


class Dashboard:
    """The routes of the pages and of the session."""

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
        """Return the page, whose script shows the view of its path."""
        root = html.escape(f"{request.scope.get('root_path', '')}/")
        return HTMLResponse(
            self._page.replace('<base href="/">', f'<base href="{root}">'), headers={"Cache-Control": "no-cache"}
        )

    async def session(self, request: Request) -> Response:
        """Return whether the browser is logged in."""
        return JSONResponse({"signed_in": self._sessions.present(request)})

    async def log_in(self, request: Request) -> Response:
        """Exchange an API token for a session."""
        if is_cross_site(request):
            return JSONResponse({"error": "pages of another site can't log in"}, status_code=403)
        session = self._sessions.create(await _token(request))
        if session is None:
            refusal = JSONResponse(
                {"error": "unauthorized", "message": "this is not one of the API tokens"}, status_code=401
            )
            return self._access.refuse(request.scope, refusal)
        response = JSONResponse({"signed_in": True})
        response.set_cookie(cookie_of(request), session, max_age=LIFETIME_SECONDS, **_attributes(request))
        return response

    async def log_out(self, request: Request) -> Response:
        """Delete the session's cookie."""
        if is_cross_site(request):
            return JSONResponse({"error": "pages of another site can't log out"}, status_code=403)
        response = JSONResponse({"signed_in": False})
        response.delete_cookie(cookie_of(request), **_attributes(request))
        return response


def _attributes(request: Request) -> dict[str, Any]:
    # Behind a proxy that terminates TLS, only the browser's Origin shows that it uses HTTPS.
    secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    return {"path": f"{request.scope.get('root_path', '')}/", "secure": secure, "httponly": True, "samesite": "strict"}


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

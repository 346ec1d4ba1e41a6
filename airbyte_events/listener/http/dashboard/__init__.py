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

from airbyte_events.listener.http.params import read_body
from airbyte_events.web.rate_limit import ClientAccess
from airbyte_events.web.sessions import LIFETIME_SECONDS, Operators, Sessions, cookie_of, is_cross_site

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

_NO_PAGES = ("/v1/", "/static/", "/webhooks/")
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

    def __init__(self, sessions: Sessions, access: ClientAccess, operators: Operators) -> None:
        self._sessions = sessions
        self._operators = operators
        self._access = access
        self._page = (_FILES / "index.html").read_text(encoding="utf-8")

    @property
    def routes(self) -> list[BaseRoute]:
        return [
            *(Route(path, self.page, include_in_schema=False) for path in PAGES),
            Mount("/static", _Files(directory=_FILES)),
            Route("/session", self.session, methods=["GET", "POST", "DELETE"], include_in_schema=False),
        ]

    async def page(self, request: Request) -> Response:
        """Return the page, whose script shows the view of its path."""
        return self._page_of(request, 200)

    def missing(self, request: Request) -> Response | None:
        """Return the page that says that there is none at this path; None for a client that is no browser."""
        path = request.scope.get("path", "")
        browser = request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")
        return self._page_of(request, 404) if browser and not path.startswith(_NO_PAGES) else None

    def _page_of(self, request: Request, status: int) -> Response:
        root = html.escape(f"{request.scope.get('root_path', '')}/")
        page = self._page.replace('<base href="/">', f'<base href="{root}">')
        return HTMLResponse(page, status, headers={"Cache-Control": "no-cache"})

    async def session(self, request: Request) -> Response:
        """Return whether the browser is logged in, and as an operator.

        POST exchanges an API token, or the code of a log-in link, for a session, DELETE ends it.
        """
        if request.method in ("GET", "HEAD"):
            operator = self._operators.sessions.present(request)
            return JSONResponse({"signed_in": self._sessions.present(request), "operator": operator})
        logs_in = request.method == "POST"
        if is_cross_site(request):
            return JSONResponse({"error": f"pages of another site can't log {'in' if logs_in else 'out'}"}, 403)
        if not logs_in:
            response = JSONResponse({"signed_in": False, "operator": False})
            response.delete_cookie(cookie_of(request), **_attributes(request))
            return response
        given = await _given(request)
        session = self._sessions.redeem(given["code"]) if "code" in given else self._sessions.create(given["token"])
        if session is None:
            message = (
                "this log-in link was used or is too old" if "code" in given else "this is not one of the API tokens"
            )
            refusal = {"error": "unauthorized", "message": message}
            return self._access.refuse(request.scope, JSONResponse(refusal, 401))
        response = JSONResponse({"signed_in": True, "operator": self._operators.sessions.valid(session)})
        response.set_cookie(cookie_of(request), session, max_age=LIFETIME_SECONDS, **_attributes(request))
        return response


def _attributes(request: Request) -> dict[str, Any]:
    # Behind a proxy that terminates TLS, only the browser's Origin shows that it uses HTTPS.
    secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    return {"path": f"{request.scope.get('root_path', '')}/", "secure": secure, "httponly": True, "samesite": "strict"}


async def _given(request: Request) -> dict[str, str]:
    """Return the ``code`` or the ``token`` of a log-in; an empty token if there is neither."""
    try:
        given = json.loads(await read_body(request, _LARGEST_LOGIN) or b"")
    except (ValueError, RecursionError):
        given = None
    for name in ("code", "token"):
        if isinstance(given, dict) and isinstance(given.get(name), str):
            return {name: given[name]}
    return {"token": ""}

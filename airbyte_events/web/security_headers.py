"""What every answer tells browsers: next to nothing is allowed."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NOTHING = b"default-src 'none'; frame-ancestors 'none'"
_PAGE = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    b"connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)

_ANYWHERE = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_NOT_KEPT = (b"cache-control", b"no-store")
_ELSEWHERE = [*_ANYWHERE, (b"content-security-policy", _NOTHING)]
ELSEWHERE = [*_ELSEWHERE, _NOT_KEPT]
"""Those of whatever is no page and does not say how long it is to be kept."""
_ON_PAGES = [
    *_ANYWHERE,
    (b"content-security-policy", _PAGE),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class SecurityHeaders:
    """Adds them to the answers of an application. There are no ``Access-Control-*`` among them: no other site's
    script reads an answer.

    A page may load what is beside it, and nothing inline. What does not say how long it is to be kept is not kept.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                page = kept = False
                for name, value in headers:
                    page = page or (name == b"content-type" and value.startswith(b"text/html"))
                    kept = kept or name == b"cache-control"
                message["headers"] = [*headers, *(_ON_PAGES if page else _ELSEWHERE), *([] if kept else [_NOT_KEPT])]
            await send(message)

        await self._app(scope, receive, send_with_headers)

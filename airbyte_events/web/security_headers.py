"""Security headers for browsers: next to nothing is allowed."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NOTHING = b"default-src 'none'; frame-ancestors 'none'"
_PAGE = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    b"connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)

_COMMON = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_NO_STORE = (b"cache-control", b"no-store")
_NO_PAGE = [*_COMMON, (b"content-security-policy", _NOTHING)]
NO_PAGE = [*_NO_PAGE, _NO_STORE]
"""The headers of a response that is no page and has no ``Cache-Control`` of its own."""
_PAGE_HEADERS = [
    *_COMMON,
    (b"content-security-policy", _PAGE),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class SecurityHeaders:
    """Add security headers to an application's responses.

    A page may load its own files and nothing inline. Responses without ``Cache-Control`` are not cached. There is no
    ``Access-Control-*``: scripts of other sites can read no response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                page = cached = False
                for name, value in headers:
                    page = page or (name == b"content-type" and value.startswith(b"text/html"))
                    cached = cached or name == b"cache-control"
                message["headers"] = [
                    *headers,
                    *(_PAGE_HEADERS if page else _NO_PAGE),
                    *([] if cached else [_NO_STORE]),
                ]
            await send(message)

        await self.app(scope, receive, send_with_headers)

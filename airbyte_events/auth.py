"""Tokens: several valid at a time, compared in constant time against all."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Tokens:
    """A set of tokens that tells members from others and nothing else. It keeps digests only.

    :param digests: SHA-256 of each token, hexadecimal.
    """

    def __init__(self, digests: Iterable[str]) -> None:
        self._digests = tuple(bytes.fromhex(digest) for digest in digests)

    def __repr__(self) -> str:
        return f"<{len(self._digests)} tokens>"

    def accepts(self, token: str) -> bool:
        digest = bytes.fromhex(digest_of(token))
        # No early end: the time tells neither which token was close nor how many there are.
        return sum([hmac.compare_digest(digest, known) for known in self._digests]) > 0


def digest_of(token: str) -> str:
    """A token's SHA-256, hexadecimal: tokens have 128 random bits or more, so a digest does not give them away."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def new_token() -> str:
    """A token of 192 random bits, URL-safe."""
    return secrets.token_urlsafe(24)


class BearerAuth:
    """Lets requests with ``Authorization: Bearer`` and a valid token through; 401 to all others."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._tokens.accepts(_bearer(scope)):
            refusal = JSONResponse(
                {"error": "unauthorized", "message": "send one of the listener's API tokens as Authorization: Bearer"},
                status_code=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _bearer(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""

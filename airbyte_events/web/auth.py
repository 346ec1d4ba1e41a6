"""Tokens: several valid at a time, compared in constant time against all."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from functools import partial

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from airbyte_events.web.rate_limit import ClientAccess

STILL_AUTHORIZED = "airbyte_events.admitted"
"""In the scope of a request that was let through: a function that says whether it still would be."""


class Tokens:
    """A set of tokens that tells members from others and nothing else. It keeps digests only.

    :param digests: SHA-256 of each token, hexadecimal.
    """

    def __init__(self, digests: Iterable[str]) -> None:
        self._digests: tuple[bytes, ...] = ()
        self.replace(digests)

    def replace(self, digests: Iterable[str]) -> bool:
        """Accept these tokens from now on, and no others.

        :return: whether that is a change.
        """
        before, self._digests = self._digests, tuple(bytes.fromhex(digest) for digest in digests)
        return before != self._digests

    def __repr__(self) -> str:
        return f"<{len(self._digests)} tokens>"

    def accepts(self, token: str) -> bool:
        digest = bytes.fromhex(digest_of(token))
        # No early end: the time tells neither which token was close nor how many there are.
        return sum([hmac.compare_digest(digest, known) for known in self._digests]) > 0

    def sign(self, token: str, message: bytes) -> str:
        """A signature that :meth:`signed` takes for as long as the token is a member."""
        return _signature(bytes.fromhex(digest_of(token)), message)

    def signed(self, signature: str, message: bytes) -> bool:
        """Whether one of the tokens signed this message."""
        return sum([hmac.compare_digest(signature, _signature(key, message)) for key in self._digests]) > 0


def _signature(key: bytes, message: bytes) -> str:
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def digest_of(token: str) -> str:
    """A token's SHA-256, hexadecimal: tokens have 128 random bits or more, so a digest does not give them away."""
    # A lone surrogate, which JSON can hold and UTF-8 can not, makes a wrong token of it, not an error.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def new_token() -> str:
    """A token of 192 random bits, URL-safe."""
    return secrets.token_urlsafe(24)


class BearerAuth:
    """Lets requests with ``Authorization: Bearer`` and a valid token through; 401 to all others.

    :param access: what knows how many of them there were.
    :param known: whether a request without one comes from somebody who has shown one before.
    :param kind: of the tokens, for people.
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: Tokens,
        access: ClientAccess,
        known: Callable[[Scope], bool] = lambda scope: False,
        kind: str = "API",
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._access = access
        self._known = known
        self._message = f"send one of the listener's {kind} tokens as Authorization: Bearer"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._admits(scope):
            refusal = JSONResponse(
                {"error": "unauthorized", "message": self._message},
                status_code=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
            await self._access.refuse(scope, refusal)(scope, receive, send)
            return
        scope[STILL_AUTHORIZED] = partial(self._admits, scope)
        await self._app(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        return self._tokens.accepts(_bearer(scope)) or self._known(scope)


def _bearer(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""

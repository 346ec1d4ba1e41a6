"""Bearer tokens: several are valid at a time, and each is compared with all in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from airbyte_events.web.rate_limit import ClientAccess

STILL_AUTHORIZED = "airbyte_events.admitted"
"""The key, in the scope of an authorized request, of a function that returns whether it still is authorized."""


class Tokens:
    """A set of tokens. It keeps digests only.

    :param digests: SHA-256 of each token, hexadecimal.
    :param including: another set, whose tokens are members too.
    """

    def __init__(self, digests: Iterable[str], *, including: Tokens | None = None) -> None:
        self._own: tuple[bytes, ...] = ()
        self._including = including
        self.replace(digests)

    @property
    def _digests(self) -> tuple[bytes, ...]:
        return self._own if self._including is None else self._own + self._including._digests

    def replace(self, digests: Iterable[str]) -> bool:
        """Accept these tokens and no others from now on.

        :return: whether they changed.
        """
        before, self._own = self._own, tuple(bytes.fromhex(digest) for digest in digests)
        return before != self._own

    def __repr__(self) -> str:
        return f"<{len(self._digests)} tokens>"

    def accepts(self, token: str) -> bool:
        digest = bytes.fromhex(digest_of(token))
        # All are compared: an early exit would reveal by its time which token was close.
        return sum([hmac.compare_digest(digest, known) for known in self._digests]) > 0

    def sign(self, token: str | None, message: bytes) -> str:
        """Return a signature that :meth:`signer` recognises as long as the token is a member.

        :param token: None for any member of this set itself.
        """
        return _signature(self._own[0] if token is None else bytes.fromhex(digest_of(token)), message)

    def signer(self, signature: str, message: bytes) -> str | None:
        """Return the digest of the token that signed this message; None if it was none of these."""
        signers = [key for key in self._digests if hmac.compare_digest(signature, _signature(key, message))]
        return signers[0].hex() if signers else None


def _signature(key: bytes, message: bytes) -> str:
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def digest_of(token: str) -> str:
    """Return a token's SHA-256, hexadecimal. Tokens have 128 random bits or more, so a digest does not reveal them."""
    # A lone surrogate, possible in JSON but not in UTF-8, must be a wrong token and not an error.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def new_token() -> str:
    """Return a URL-safe token of 192 random bits."""
    return secrets.token_urlsafe(24)


@dataclass(eq=False, repr=False)
class BearerAuth:
    """Pass requests with ``Authorization: Bearer`` and a valid token on; respond 401 to all others.

    :param access: limits the rate of refusals.
    :param has_session: returns whether a request without a token has a session.
    :param kind: of the tokens, for the error message.
    """

    app: ASGIApp
    tokens: Tokens
    access: ClientAccess
    has_session: Callable[[Scope], bool] = lambda scope: False
    kind: str = "API"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._authorizes(scope):
            message = f"send one of the listener's {self.kind} tokens as Authorization: Bearer"
            refusal = JSONResponse(
                {"error": "unauthorized", "message": message},
                status_code=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
            await self.access.refuse(scope, refusal)(scope, receive, send)
            return
        scope[STILL_AUTHORIZED] = partial(self._authorizes, scope)
        await self.app(scope, receive, send)

    def _authorizes(self, scope: Scope) -> bool:
        return self.tokens.accepts(bearer(scope)) or self.has_session(scope)


def bearer(scope: Scope) -> str:
    """Return the request's bearer token; "" for none."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""

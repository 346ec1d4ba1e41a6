"""Access tokens that expire before their ``expires_in``."""

from __future__ import annotations

import hmac
import secrets

import anyio

CLAIMED_LIFETIME = 900
"""The least ``expires_in``, in seconds."""


class Tokens:
    """Issues tokens for one client id and secret, and accepts them until they expire.

    :param client_id: None: the deployment runs without authentication.
    :param client_secret: None likewise.
    :param lifetime: the real life of a token, in seconds.
    """

    def __init__(self, client_id: str | None, client_secret: str | None, lifetime: float) -> None:
        self._credentials = None if client_id is None or client_secret is None else (client_id, client_secret)
        self._lifetime = lifetime
        self._expiry: dict[str, float] = {}

    @property
    def required(self) -> bool:
        return self._credentials is not None

    def issue(self, client_id: str, client_secret: str) -> dict[str, object] | None:
        """Return a new token in the token endpoint's shape; None for wrong credentials."""
        if self._credentials is None:
            return None
        right = [
            hmac.compare_digest(given.encode(), known.encode())
            for given, known in zip((client_id, client_secret), self._credentials, strict=True)
        ]
        if not all(right):
            return None
        now = anyio.current_time()
        self._expiry = {token: expiry for token, expiry in self._expiry.items() if expiry > now}
        token = secrets.token_urlsafe(24)
        self._expiry[token] = now + self._lifetime
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": max(CLAIMED_LIFETIME, round(self._lifetime)),
        }

    def admits(self, authorization: str) -> bool:
        """Return whether a request with that ``Authorization`` header is authorised."""
        if not self.required:
            return True
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and self._expiry.get(token.strip(), 0.0) > anyio.current_time()

    def expire(self) -> int:
        """Let all tokens expire.

        :return: how many were valid.
        """
        now = anyio.current_time()
        held = sum(expiry > now for expiry in self._expiry.values())
        self._expiry.clear()
        return held

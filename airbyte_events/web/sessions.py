"""Sessions of the dashboard: a browser exchanges an API token, or a code that is valid once, for a cookie that scripts
can't read.

A session is signed with the token's digest and not stored: every listener with the same tokens accepts it, and it ends
when its token is removed.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Iterable

from starlette.requests import HTTPConnection
from starlette.types import Scope

from airbyte_events._utils.networks import Networks
from airbyte_events.web.auth import Tokens, bearer, digest_of
from airbyte_events.web.client_address import client_address

LIFETIME_SECONDS = 12 * 3600

CODE_SECONDS = 600.0
"""The life of a code for one log-in."""

REQUESTED_WITH = "airbyte-events"
"""The value of ``X-Requested-With`` that the dashboard sends."""


class Sessions:
    """Create and verify sessions."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._code: tuple[str, float] | None = None

    def new_code(self, seconds: float = CODE_SECONDS) -> str:
        """Return a code for one log-in within so many seconds. It replaces the previous one."""
        code = secrets.token_urlsafe(24)
        self._code = code, time.monotonic() + seconds
        return code

    def redeem(self, code: str) -> str | None:
        """Return a session for the code; None if it is wrong, expired or was used."""
        known, until = self._code or ("", 0.0)
        if not hmac.compare_digest(code.encode(errors="replace"), known.encode()) or time.monotonic() >= until:
            return None
        self._code = None
        return self._session(None)

    def create(self, token: str) -> str | None:
        """Return a session for a token; None if the token is wrong."""
        if not self._tokens.accepts(token):
            return None
        return self._session(token)

    def _session(self, token: str | None) -> str:
        until = str(int(time.time()) + LIFETIME_SECONDS)
        return f"{until}.{self._tokens.sign(token, _message(until))}"

    def valid(self, session: str) -> bool:
        """Return whether a session is signed by a current token and has not expired."""
        return self.opened_by(session) is not None

    def opened_by(self, session: str) -> str | None:
        """Return the digest of the token that a valid session was opened with; None if it is not valid."""
        match = re.fullmatch(r"([0-9]{10})\.([0-9a-f]{64})", session)
        if match is None or int(match[1]) < time.time():
            return None
        return self._tokens.signer(match[2], _message(match[1]))

    def present(self, request: HTTPConnection) -> bool:
        return self.valid(request.cookies.get(cookie_of(request), ""))

    def authorizes(self, scope: Scope) -> bool:
        """Return whether a request has a session and, if it changes something, comes from our own pages."""
        request = HTTPConnection(scope)
        changes = scope["method"] not in ("GET", "HEAD")
        return self.present(request) and not (changes and is_cross_site(request))


class Operators:
    """Who may change jobs: requests with an operator token, or with a session that one opened.

    :param tokens: the operator tokens; by default nobody may.
    :param proxies: the networks of the trusted ones, for the client's address.
    """

    def __init__(self, tokens: Tokens | None = None, proxies: Iterable[str] = ()) -> None:
        self.tokens = tokens or Tokens(())
        self.sessions = Sessions(self.tokens)
        self._proxies = Networks(proxies)

    def authorizes(self, scope: Scope) -> bool:
        """Return whether a request may change jobs. One with a session must come from our own pages."""
        return self.tokens.accepts(bearer(scope)) or self.sessions.authorizes(scope)

    def describe(self, scope: Scope) -> str:
        """Return who sent a request, for a log line: the client and the first digits of the token's SHA-256."""
        request = HTTPConnection(scope)
        token = bearer(scope)
        digest = digest_of(token) if token else self.sessions.opened_by(request.cookies.get(cookie_of(request), ""))
        by = "token" if token else "session"
        return f"client={client_address(scope, self._proxies)} by={by} token_sha256={(digest or '')[:8]}"


def cookie_of(request: HTTPConnection) -> str:
    """Return the cookie's name. It contains the port, as browsers send a host's cookies to all of its ports."""
    port = re.search(r":([0-9]{1,5})$", request.headers.get("host", ""))
    return f"airbyte_events_session_{port[1]}" if port else "airbyte_events_session"


def is_cross_site(request: HTTPConnection) -> bool:
    """Return whether a page of another site may have sent the request, to which the browser would add our cookie.

    Such a page can't send this header: a custom header requires CORS, which is never granted.
    """
    return request.headers.get("x-requested-with") != REQUESTED_WITH


def _message(until: str) -> bytes:
    return f"session until {until}".encode()

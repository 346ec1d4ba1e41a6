"""Sessions: who has shown an API token in a browser goes on with a cookie, which scripts can't read.

A session is signed with the token's digest and kept nowhere: every listener with the same tokens takes it, and it ends
with its token.
"""

from __future__ import annotations

import re
import time

from starlette.requests import HTTPConnection
from starlette.types import Scope

from airbyte_events.web.auth import Tokens

LIFETIME_SECONDS = 12 * 3600

REQUESTED_WITH = "airbyte-events"
"""What scripts of the dashboard say in ``X-Requested-With``."""


class Sessions:
    """:param tokens: the API tokens."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def begin(self, token: str) -> str | None:
        """A session for who has a token; None for a wrong one."""
        if not self._tokens.accepts(token):
            return None
        until = str(int(time.time()) + LIFETIME_SECONDS)
        return f"{until}.{self._tokens.sign(token, _said(until))}"

    def valid(self, session: str) -> bool:
        """Whether it is one of ours that has not ended."""
        match = re.fullmatch(r"([0-9]{10})\.([0-9a-f]{64})", session)
        if match is None or int(match[1]) < time.time():
            return False
        return self._tokens.signed(match[2], _said(match[1]))

    def shown(self, request: HTTPConnection) -> bool:
        """Whether a request comes with one."""
        return self.valid(request.cookies.get(cookie_of(request), ""))

    def admit(self, scope: Scope) -> bool:
        """Whether a request may do what it asks for; one that changes something only from our own pages."""
        request = HTTPConnection(scope)
        changes = scope["method"] not in ("GET", "HEAD")
        return self.shown(request) and not (changes and from_elsewhere(request))


def cookie_of(request: HTTPConnection) -> str:
    """The cookie's name. Browsers send a host's cookies to all of its ports, so each port has a name of its own."""
    port = re.search(r":([0-9]{1,5})$", request.headers.get("host", ""))
    return f"airbyte_events_session_{port[1]}" if port else "airbyte_events_session"


def from_elsewhere(request: HTTPConnection) -> bool:
    """Whether a page of another site may have sent the request: the browser adds its cookies to that, too.

    A header of one's own is something that such a page may send only where it was allowed to, and it is nowhere.
    """
    return request.headers.get("x-requested-with") != REQUESTED_WITH


def _said(until: str) -> bytes:
    return f"session until {until}".encode()

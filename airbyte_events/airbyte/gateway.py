"""Headers for a gateway in front of Airbyte, such as Cloudflare Access, Google's IAP or basic authentication.

They are secrets, and sent to the origin of Airbyte's API only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import httpx

MOST = 20
_LONGEST = 8192
_SECRET = 8
"""Shorter values are no secrets, and masking them would make messages unreadable."""

_OWN = frozenset(
    [
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect"),
        *("host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "user-agent"),
    ]
)


def parse_headers(lines: Iterable[str], *, authorized: bool) -> dict[str, str]:
    """Return headers by name.

    :param lines: each as ``Name: value``.
    :param authorized: whether requests have Airbyte's own access token.
    :raises ValueError: if one is wrong; the message contains no value.
    """
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", name):
            raise ValueError("a line is not of the form Name: value")
        if not re.fullmatch(rf"[!-~]([ -~\t]{{0,{_LONGEST}}})", value):
            raise ValueError(f"the header {name} has no value, or one with characters that no header has")
        if name.lower() in _OWN:
            raise ValueError(f"the header {name} can't be set, as each request has its own")
        if name.lower() == "authorization" and authorized:
            raise ValueError(
                "the header Authorization has Airbyte's own access token, as a client id is set: use another header, "
                "such as Proxy-Authorization"
            )
        if name.lower() in map(str.lower, found):
            raise ValueError(f"the header {name} is there twice")
        found[name] = value
    if len(found) > MOST:
        raise ValueError(f"more than {MOST} headers")
    return found


def secrets_in(headers: Iterable[str]) -> tuple[str, ...]:
    """Return what to mask of these values: each, and the part behind a scheme such as ``Bearer``."""
    parts = (part for value in headers for part in (value, value.partition(" ")[2]))
    return tuple(part for part in parts if len(part) >= _SECRET)


def same_origin(url: str | httpx.URL, other: str | httpx.URL) -> bool:
    """Return whether two URLs have the same scheme, host and port."""
    one, two = httpx.URL(url), httpx.URL(other)
    return (one.scheme, one.host, one.port) == (two.scheme, two.host, two.port)

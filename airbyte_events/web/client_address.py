"""The client's address of a request, behind trusted proxies too."""

from __future__ import annotations

import re

from starlette.types import Scope

from airbyte_events._utils.networks import Address, Networks, plain_address

_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](:\d{1,5})?|(?P<v4>[0-9.]+):\d{1,5}")
_MOST_HOPS = 32


def client_address(scope: Scope, proxies: Networks) -> Address | None:
    """Return the address of a request's client.

    ``X-Forwarded-For`` is read from its end, as far as trusted proxies wrote it: anybody can have written what precedes
    the first address that is not a trusted proxy. A UNIX socket, which has no addresses, is trusted.

    :return: None if a trusted proxy wrote no valid address, or there is none.
    """
    peer = scope.get("client")
    address = None if peer is None else parse_address(peer[0])
    if peer is not None and (address is None or address not in proxies):
        return address
    for hop in _hops(scope):
        address = parse_address(hop)
        if address is None or address not in proxies:
            return address
    return address


def parse_address(text: str) -> Address | None:
    """Return an address as proxies write it: possibly with a port, then with brackets around IPv6; None if invalid."""
    if match := _WITH_PORT.fullmatch(text):
        text = match["v6"] or match["v4"] or ""
    return plain_address(text)


def _hops(scope: Scope) -> list[str]:
    """Return the addresses of ``X-Forwarded-For``, the nearest first."""
    lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return [hop.strip() for hop in b",".join(lines).decode("latin-1").rsplit(",", _MOST_HOPS)[::-1]] if lines else []

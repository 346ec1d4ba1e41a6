"""Whose request it is, and whether such an address may send one."""

from __future__ import annotations

import ipaddress
import re

from starlette.types import Scope

from airbyte_events._utils.networks import Address, Networks

_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](:\d{1,5})?|(?P<v4>[0-9.]+):\d{1,5}")
_MOST_HOPS = 32


def client_address(scope: Scope, proxies: Networks) -> Address | None:
    """The address that a request came from.

    ``X-Forwarded-For`` is read from its end, and only as far as proxies that are trusted wrote it: what stands before
    the first address that is none of theirs, anybody can have written. A socket in the file system, which has no
    addresses, is the own user's and is trusted.

    :param proxies: those whose word counts.
    :return: None if what a trusted proxy tells is no address, or there is none.
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
    """An address as proxies write it: with a port at times, IPv6 then in brackets."""
    if match := _WITH_PORT.fullmatch(text):
        text = match["v6"] or match["v4"] or ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address


def _hops(scope: Scope) -> list[str]:
    """What ``X-Forwarded-For`` tells, the nearest first."""
    lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return [hop.strip() for hop in b",".join(lines).decode("latin-1").rsplit(",", _MOST_HOPS)[::-1]] if lines else []

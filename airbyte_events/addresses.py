"""Whose request it is, and whether such an address may send one."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.types import Scope

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](:\d{1,5})?|(?P<v4>[0-9.]+):\d{1,5}")
_MOST_HOPS = 32


class Networks:
    """Networks of either family. An IPv4 address written as IPv6 (``::ffff:192.0.2.1``) is that IPv4 address.

    :param networks: such as ``192.0.2.0/24`` or a single address.
    :raises ValueError: if one of them is none.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = tuple(parse_network(text) for text in networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._networks)


def parse_network(text: str) -> Network:
    """:raises ValueError: if it is no network, or has bits set that are not the network's."""
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network) and (mapped := network.network_address.ipv4_mapped):
        if network.prefixlen < 96:
            raise ValueError("wider than all of IPv4")
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


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

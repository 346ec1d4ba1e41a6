"""IP addresses and networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Networks:
    """Networks of either family. An IPv4 address written as IPv6 (``::ffff:192.0.2.1``) is that IPv4 address.

    :param networks: such as ``192.0.2.0/24`` or a single address.
    :raises ValueError: if one is invalid.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = tuple(parse_network(text) for text in networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._networks)


def parse_network(text: str) -> Network:
    """:raises ValueError: if the text is not a network, or has host bits set."""
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network) and (mapped := network.network_address.ipv4_mapped):
        if network.prefixlen < 96:
            raise ValueError("wider than all of IPv4")
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def plain_address(text: str) -> Address | None:
    """Return the address, an IPv4 address written as IPv6 as that IPv4 address; None if the text is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address

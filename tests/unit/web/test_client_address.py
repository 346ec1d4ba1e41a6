"""Whose request it is: what proxies tell, and which of them are believed."""

from __future__ import annotations

import ipaddress

import pytest

from airbyte_events._utils.networks import Networks, parse_network
from airbyte_events.web.client_address import client_address, parse_address


def client(peer: str | None, forwarded: str | list[str] | None = None, proxies: str = "") -> str | None:
    lines = [] if forwarded is None else [forwarded] if isinstance(forwarded, str) else forwarded
    scope = {
        "type": "http",
        "client": None if peer is None else (peer, 1234),
        "headers": [(b"x-forwarded-for", line.encode()) for line in lines],
    }
    address = client_address(scope, Networks(proxies.split()))
    return None if address is None else str(address)


@pytest.mark.parametrize("forwarded", [None, "192.0.2.1", "", "127.0.0.1", ["a", "b"]])
def test_nobody_is_believed_unless_trusted(forwarded: str | list[str] | None) -> None:
    assert client("203.0.113.9", forwarded) == "203.0.113.9"
    assert client("203.0.113.9", forwarded, "10.0.0.0/8 203.0.113.8") == "203.0.113.9"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (None, "10.0.0.1"),
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1 ", "192.0.2.1"),
        ("198.51.100.66, 192.0.2.1", "192.0.2.1"),
        ("198.51.100.66, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
        (["198.51.100.66", "192.0.2.1", "10.0.0.2"], "192.0.2.1"),
        (["198.51.100.66, 192.0.2.1", "10.0.0.2, 10.1.2.3"], "192.0.2.1"),
        ("192.0.2.1:5555", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("10.0.0.3", "10.0.0.3"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("192.0.2.1, unknown", None),
        ("192.0.2.1, ", None),
        ("", None),
        ("unix:", None),
        ("192.0.2.1, 10.0.0.2, _hidden, 10.0.0.3", None),
        (",".join(["192.0.2.1", *["10.0.0.2"] * 100]), None),
    ],
)
def test_what_trusted_proxies_tell(forwarded: str | None, address: str | None) -> None:
    assert client("10.0.0.1", forwarded, "10.0.0.0/8") == address
    assert client("::ffff:10.0.0.1", forwarded, "::ffff:10.0.0.0/104") == address


def test_a_socket_in_the_file_system_is_trusted() -> None:
    assert client(None) is None
    assert client(None, "192.0.2.1") == "192.0.2.1"
    assert client(None, "198.51.100.66, 192.0.2.1") == "192.0.2.1"


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("192.0.2.0/24", ["192.0.2.1", "::ffff:192.0.2.255"], ["192.0.3.1", "2001:db8::1", "::192.0.2.1"]),
        ("192.0.2.7", ["192.0.2.7"], ["192.0.2.8"]),
        ("2001:db8::/32", ["2001:db8::1", "2001:db8:ffff::1"], ["2001:db9::1", "192.0.2.1"]),
        ("::ffff:192.0.2.0/120", ["192.0.2.1", "::ffff:192.0.2.1"], ["192.0.3.1"]),
        ("fe80::/10", ["fe80::1%eth0"], ["192.0.2.1"]),
        ("0.0.0.0/0", ["192.0.2.1"], ["2001:db8::1"]),
    ],
)
def test_networks(network: str, inside: list[str], outside: list[str]) -> None:
    networks = Networks([network, "198.51.100.66"])

    def within(text: str) -> bool:
        address = parse_address(text)
        assert address is not None
        return address in networks

    assert all(within(address) for address in [*inside, "198.51.100.66"])
    assert not any(within(address) for address in outside)
    assert networks
    assert not Networks()


@pytest.mark.parametrize("text", ["", "192.0.2.1/24", "192.0.2.0/33", "example.com", "::ffff:0:0/90", "192.0.2.0-9"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_network(text)


@pytest.mark.parametrize(
    "text", ["", "[]", "[192.0.2.1", "1.2.3", "1.2.3.4:x", "[::1]x", "127.1", "0x7f000001", "٣.1.1.1"]
)
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None


def test_brackets_may_hold_either_family() -> None:
    assert parse_address("[192.0.2.1]:80") == ipaddress.ip_address("192.0.2.1")

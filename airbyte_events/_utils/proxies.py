"""HTTP clients that use the proxies of the environment.

httpx's own support fails at ``NO_PROXY`` entries that it can't parse, such as ``::1/128``, ignores IPv4 networks there,
and its error messages repeat a part of a proxy's password.
"""

from __future__ import annotations

import importlib
import ipaddress
import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any
from urllib.request import getproxies

import httpx

from airbyte_events._utils.networks import Network, plain_address
from airbyte_events.errors import SettingsError

logger = logging.getLogger(__name__)

_EXAMPLE = "http://proxy.example.com:3128"
_SCHEMES = ("http", "https", "socks5", "socks5h")
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
_ENTRY = re.compile(r"(?:(?P<scheme>https?|all)://)?(?P<host>\[[^\]]*\](?:/\d+)?|[^:]*)(?::(?P<port>\d{1,5}))?")


def async_client(
    *,
    verify: Any = None,
    limits: httpx.Limits = _LIMITS,
    transport: httpx.AsyncBaseTransport | None = None,
    given: Iterable[tuple[str, str]] = (),
    proxied: bool = True,
    **options: Any,
) -> httpx.AsyncClient:
    """Return a client, which the caller closes.

    :param verify: the TLS settings; by default the usual authorities, or those of ``SSL_CERT_FILE``.
    :param transport: replaces sockets and proxies.
    :param given: proxies by URL pattern (``https://``, ``all://``); they precede those of the environment, and
        ``NO_PROXY`` applies to them, too.
    :param proxied: False for a client that connects only to this machine.
    :param options: of :class:`httpx.AsyncClient`.
    :raises SettingsError: if the environment names an unusable proxy.
    :raises ValueError: if one of ``given`` is unusable; httpx also raises InvalidURL and ImportError.
    """
    if transport is not None:
        return httpx.AsyncClient(transport=transport, trust_env=False, **options)
    environment = Environment.read() if proxied else Environment()
    routes, mounts = _routes(partial(httpx.AsyncHTTPTransport, limits=limits), verify, environment, given)
    return httpx.AsyncClient(transport=routes, mounts=mounts, trust_env=False, **options)


def blocking_client(*, verify: Any = None, given: Iterable[tuple[str, str]] = (), **options: Any) -> httpx.Client:
    """Return a blocking client; see :func:`async_client`."""
    routes, mounts = _routes(partial(httpx.HTTPTransport, limits=_LIMITS), verify, Environment.read(), given)
    return httpx.Client(transport=routes, mounts=mounts, trust_env=False, **options)


def _routes(
    transport: Callable[..., Any], verify: Any, environment: Environment, given: Iterable[tuple[str, str]]
) -> tuple[_Routes, dict[str, _Routes]]:
    """Return the routes of a client, and those by the URL pattern of a given proxy."""
    connect = partial(transport, verify=httpx.create_ssl_context() if verify is None else verify)
    made = {url: connect(proxy=url) for url in set(environment.proxies.values())}
    by_scheme = {scheme: made[url] for scheme, url in environment.proxies.items()}
    routes = _Routes(connect(), by_scheme, environment.bypass)
    return routes, {
        pattern: replace(routes, proxies=dict.fromkeys(("http", "https"), connect(proxy=url))) for pattern, url in given
    }


@dataclass(frozen=True)
class _Routes(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """The transports of a client, all blocking or all not: ``direct``, and ``proxies`` by the scheme of the request."""

    direct: Any
    proxies: dict[str, Any]
    bypass: Bypass

    def _choose(self, url: httpx.URL) -> Any:
        proxy = self.proxies.get(url.scheme)
        return self.direct if proxy is None or self.bypass.holds(url) else proxy

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response: httpx.Response = self._choose(request.url).handle_request(request)
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response: httpx.Response = await self._choose(request.url).handle_async_request(request)
        return response

    def close(self) -> None:
        for transport in {self.direct, *self.proxies.values()}:
            transport.close()

    async def aclose(self) -> None:
        for transport in {self.direct, *self.proxies.values()}:
            await transport.aclose()


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of ``NO_PROXY``: a network, or a host and its subdomains; after a leading dot the subdomains alone."""

    scheme: str | None
    port: int | None
    host: str = ""
    network: Network | None = None

    def holds(self, scheme: str, host: str, port: int) -> bool:
        if self.scheme not in (None, scheme) or self.port not in (None, port):
            return False
        if self.network is not None:
            address = plain_address(host.partition("%")[0])
            return address is not None and address.version == self.network.version and address in self.network
        under = self.host != "localhost" and host.endswith("." + self.host.removeprefix("."))
        return under or host == self.host


@dataclass(frozen=True, slots=True)
class Bypass:
    """``NO_PROXY``: names, addresses and networks, with or without a port, or ``*`` for everything."""

    entries: tuple[_Entry, ...] = ()
    everything: bool = False

    @classmethod
    @lru_cache
    def parse(cls, text: str) -> Bypass:
        """Parse the variable. Invalid entries are ignored, and logged once."""
        words = [word for word in re.split(r"[,\s]+", text) if word]
        if "*" in words:
            return cls(everything=True)
        entries = [_parse_entry(word) for word in words]
        if wrong := entries.count(None):
            ignored = "NO_PROXY has entries that are neither hosts nor networks, which are ignored: count=%d"
            logger.warning(ignored, wrong)
        return cls(tuple(entry for entry in entries if entry is not None))

    def holds(self, url: httpx.URL) -> bool:
        """Return whether requests to that URL use no proxy."""
        host = url.host.lower().rstrip(".")
        port = url.port or {"https": 443}.get(url.scheme, 80)
        return self.everything or any(entry.holds(url.scheme, host, port) for entry in self.entries)


def _parse_entry(word: str) -> _Entry | None:
    try:
        # An IPv6 address has colons of its own.
        return _Entry(None, None, network=ipaddress.ip_network(word, strict=False))
    except ValueError:
        match = _ENTRY.fullmatch(word)
    if match is None:
        return None
    scheme = None if match["scheme"] == "all" else match["scheme"]
    port = int(match["port"]) if match["port"] else None
    host = match["host"].lower().rstrip(".").removeprefix("*")
    try:
        return _Entry(scheme, port, network=ipaddress.ip_network(re.sub(r"[\[\]]", "", host), strict=False))
    except ValueError:
        return _Entry(scheme, port, host=host) if re.fullmatch(r"\.?[^\s/\[\].]+(\.[^\s/\[\].]+)*", host) else None


@dataclass(frozen=True, slots=True)
class Environment:
    """The proxies of ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY``, or else of the system's settings.

    :param proxies: their URLs by the scheme of a request, ``http`` or ``https``.
    :param bypass: the hosts that use none of them.
    """

    proxies: dict[str, str] = field(default_factory=dict, repr=False)
    bypass: Bypass = field(default_factory=Bypass)

    @classmethod
    def read(cls) -> Environment:
        """:raises SettingsError: if one is unusable; the message names the variable and contains no secret."""
        found = {scheme: url.strip() for scheme, url in getproxies().items() if url.strip()}
        bypass = Bypass.parse(found.get("no", ""))
        if bypass.everything:
            return cls()
        proxies = {}
        for scheme in ("http", "https"):
            if (source := next((each for each in (scheme, "all") if each in found), None)) is not None:
                proxies[scheme] = _checked(source, found[source])
        return cls(proxies, bypass)


def _checked(source: str, value: str) -> str:
    """Return the proxy's URL for httpx; ``source`` is ``http``, ``https`` or ``all``."""
    name = next(
        (each for each in (f"{source}_proxy", *os.environ) if each.lower() == f"{source}_proxy" and each in os.environ),
        f"the system's {source} proxy",
    )
    url = value if "://" in value else f"http://{value}"
    scheme = url.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        shown = repr(scheme) if re.fullmatch(r"[a-z0-9+.-]{1,20}", scheme) else "what stands before ://"
        raise SettingsError(f"{name}: {shown} is not one of {', '.join(_SCHEMES)}; for example {name}={_EXAMPLE}")
    try:
        parsed = httpx.URL(url)
        usable = bool(parsed.host) and not parsed.query and not parsed.fragment and "@" not in parsed.path
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise SettingsError(
            f"{name}: not a proxy's address; for example {name}={_EXAMPLE}. In its user name and password # is written "
            "%23, / %2F, ? %3F, @ %40 and : %3A"
        )
    if scheme.startswith("socks"):
        try:
            importlib.import_module("socksio")
        except ImportError:
            raise SettingsError(
                f"{name}: a {scheme} proxy needs a package that is not installed: pip install 'httpx[socks]'; or name "
                f"one that speaks HTTP, for example {name}={_EXAMPLE}"
            ) from None
    return url

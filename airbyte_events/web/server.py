"""The HTTP server: uvicorn with h11, on a bound socket, shut down by its caller."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import uvicorn
from starlette.types import ASGIApp

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment, unused-ignore]

from airbyte_events.web.h11_protocol import LARGEST_HEAD, MAX_CONNECTIONS, BoundedProtocol, ConnectionLimits

HANDSHAKE_SECONDS = 10.0
"""The longest TLS handshake."""

_OTHER_FILES = 256
"""Files for the store and outgoing connections; at most a quarter of the limit."""

RESERVE = 4
"""One in this number of connections is reserved for urgent requests."""

_ACCEPTED_AT_ONCE = 32
"""The connections accepted in one iteration of the event loop; until they are checked, they exceed the limit."""

SENT_BYTES = 64 * 1024
"""The system's send buffer of a connection. The default is up to 4 MiB, which counts for a container's memory limit."""

_BACKLOG = 2048
"""The connections that the system queues until they are accepted."""


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address.

    :param port: 0 for a free one.
    :raises OSError: if the address is not available.
    """
    # With the protocol given, asyncio disables Nagle's algorithm, which would delay a response in two parts by 40 ms.
    family, type_, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, type_, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_BYTES)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def allow_open_files() -> int:
    """Raise the limit of open files to 16,384 as far as allowed, and return it; the default is often 1,024."""
    wanted = 16_384
    if resource is None:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def connections_for(files: int, servers: int = 1) -> int:
    """Return the limit of connections per server. It leaves as many files again for connections that are refused.

    :param files: the limit of open files.
    """
    return max(1, min(MAX_CONNECTIONS, (files - min(_OTHER_FILES, files // 4)) // (2 * servers)))


def limits_for(files: int, servers: int = 1) -> ConnectionLimits:
    """Return the limits of each server's connections."""
    most = connections_for(files, servers)
    return ConnectionLimits(most=most, reserve=most // RESERVE)


def url_of(bound: socket.socket, *, scheme: str = "http") -> str:
    """Return the address of a bound socket as a URL without a path."""
    host, port = bound.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class Server(uvicorn.Server):
    """Serve until ``should_exit`` is set. It handles no signals and no headers of proxies.

    It uses h11, as httptools, uvicorn's default if installed, loses the body of a request that offers an upgrade to
    HTTP/2.

    :param options: further ones of ``uvicorn.Config``.
    """

    def __init__(
        self, app: ASGIApp, *, limits: ConnectionLimits | None = None, tls: ssl.SSLContext | None = None, **options: Any
    ) -> None:
        self._limits = limits or ConnectionLimits()
        settings: dict[str, Any] = {
            "http": functools.partial(BoundedProtocol, limits=self._limits),
            "h11_max_incomplete_event_size": LARGEST_HEAD,
            "ws": "none",
            "lifespan": "off",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "proxy_headers": False,
        }
        super().__init__(uvicorn.Config(app, **{**settings, **options}))
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Like uvicorn's, which allows a minute for the TLS handshake.
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )

        tls: dict[str, Any] = {}
        if self._tls is not None:
            tls = {"ssl": self._tls, "ssl_handshake_timeout": HANDSHAKE_SECONDS}
        # asyncio uses one number for the connections accepted at once and for the system's queue.
        self.servers = [
            await loop.create_server(protocol, sock=each, backlog=_ACCEPTED_AT_ONCE, **tls) for each in sockets or ()
        ]
        for each in sockets or ():
            each.listen(_BACKLOG)
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        self._limits.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, *, port: int = 0, **options: Any) -> AsyncIterator[str]:
    """Serve an application on this machine alone: ``async with serving(app) as url``. Requires asyncio.

    :raises OSError: if the address is not available.
    """
    with bind("127.0.0.1", port) as bound:
        server = Server(app, **options)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [bound])
            try:
                yield url_of(bound)
            finally:
                server.should_exit = True

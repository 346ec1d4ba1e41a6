"""The HTTP server: uvicorn with h11, on a socket that is bound beforehand, ended by whoever runs it."""

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
"""The longest beginning of TLS."""

_OTHER_FILES = 256
"""The store's, and connections of our own; a quarter of what may be open where that is less."""

RESERVE = 4
"""Of so many connections one is for urgent requests alone."""

_ACCEPTED_AT_ONCE = 32
"""Connections that are accepted in one round of the event loop: more of them are open than may be until each has been
looked at."""

SENT_BYTES = 64 * 1024
"""What the system keeps of what was sent over one connection and not read. It would be up to 4 MiB, which the memory
limit of a container counts."""

_BACKLOG = 2048
"""Connections that the system keeps until they are accepted."""


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address, before anything else is begun.

    :param port: 0 for any free one.
    :raises OSError: if the address can't be had.
    """
    # The protocol is given, as asyncio turns Nagle's algorithm off only where it knows that it is TCP: with it on, an
    # answer in two parts takes the 40 ms of a delayed acknowledgement.
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


def allow_open_files(wanted: int = 16_384) -> int:
    """Have as many open files as are wanted and may be had: often it is 1,024 of far more.

    :return: how many that is.
    """
    if resource is None:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def connections_for(files: int, servers: int = 1) -> int:
    """How many connections each server may have, so that as many again can be told that there are too many, and none
    waits in vain to be accepted.

    :param files: how many may be open.
    """
    return max(1, min(MAX_CONNECTIONS, (files - min(_OTHER_FILES, files // 4)) // (2 * servers)))


def limits_for(files: int, servers: int = 1) -> ConnectionLimits:
    """The limits of each server's connections.

    :param files: how many may be open.
    """
    most = connections_for(files, servers)
    return ConnectionLimits(most=most, reserve=most // RESERVE)


def url_of(bound: socket.socket, *, scheme: str = "http") -> str:
    """The address of a bound socket, as a URL without a path."""
    host, port = bound.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class Server(uvicorn.Server):
    """Serves until ``should_exit`` is set; signals are left to the process.

    It parses with h11, which hands over the body of a request that offers an upgrade to HTTP/2; httptools, uvicorn's
    own choice where it is installed, loses it. What a proxy tells of a client is left to the application, too.

    :param app: what to serve.
    :param limits: of its connections.
    :param tls: serve HTTPS with this.
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
        # As uvicorn's own, which leaves strangers a minute for the handshake.
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )

        tls: dict[str, Any] = {}
        if self._tls is not None:
            tls = {"ssl": self._tls, "ssl_handshake_timeout": HANDSHAKE_SECONDS}
        # asyncio takes one number for both: how many are accepted at once, and how many the system keeps.
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
async def serving(app: ASGIApp, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> AsyncIterator[str]:
    """Serve an application while this is entered: ``async with serving(app) as url``. Runs on asyncio.

    :param options: of :class:`Server`.
    :raises OSError: if the address can't be had.
    """
    with bind(host, port) as bound:
        server = Server(app, **options)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [bound])
            try:
                yield url_of(bound)
            finally:
                server.should_exit = True

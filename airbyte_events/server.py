"""The HTTP server: uvicorn with h11, on a socket that is bound beforehand, ended by whoever runs it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol


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
        bound.bind(address)
        bound.listen(2048)
    except OSError:
        bound.close()
        raise
    return bound


def url_of(bound: socket.socket, *, scheme: str = "http") -> str:
    """The address of a bound socket, as a URL without a path."""
    host, port = bound.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class _Protocol(H11Protocol):
    """Without an access log, also where that has handlers of its own: webhook tokens are in URLs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False


class Server(uvicorn.Server):
    """Serves until ``should_exit`` is set; signals are left to the process.

    It parses with h11, which hands over the body of a request that offers an upgrade to HTTP/2; httptools, uvicorn's
    own choice where it is installed, loses it.

    :param app: what to serve.
    :param options: further ones of ``uvicorn.Config``.
    """

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        settings = {"http": _Protocol, "ws": "none", "lifespan": "off", "log_config": None, "access_log": False}
        super().__init__(uvicorn.Config(app, **{**settings, "server_header": False, **options}))

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

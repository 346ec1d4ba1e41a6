"""How the workers of one server reach the one that is the listener: by a socket in the file system."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import httpx
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airbyte_events.web.server import Server

logger = logging.getLogger(__name__)

MAX_BODY = 256 * 1024
"""Bytes of the longest request that a listener takes."""

CONNECT_SECONDS = 2.0

ANSWER_SECONDS = 70.0
"""A listener begins its answer sooner: even where it has to ask Airbyte, and has to wait for events."""

_LONGEST_PATH = 100  # of a socket, on every Unix
_BETWEEN_NEIGHBOURS = frozenset(
    {b"connection", b"keep-alive", b"upgrade", b"http2-settings", b"transfer-encoding", b"te", b"content-length"}
)


def passage_path(store: Path) -> Path:
    """Where the socket is: beside the store, if its path is not too long for one.

    :param store: the store's file.
    """
    store = store.absolute()
    beside = store.with_name(f"{store.name}.sock")
    if len(os.fsencode(beside)) <= _LONGEST_PATH:
        return beside
    name = hashlib.sha256(os.fsencode(store)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"airbyte-events-{os.getuid()}-{name}.sock"


@contextlib.asynccontextmanager
async def serve_passage(app: ASGIApp, path: Path) -> AsyncIterator[None]:
    """Answer there, too. Whoever does has the store to itself, so that a socket that is left there is nobody's."""
    with _bind(path) as bound:
        # To uvicorn "no access log" means none in the whole process, so it is told otherwise; its protocol writes none.
        server = Server(app, timeout_graceful_shutdown=1, access_log=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [bound])
            try:
                yield
            finally:
                server.should_exit = True


@contextlib.contextmanager
def _bind(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        try:
            path.chmod(0o600)
            bound.listen(1024)
            yield bound
        finally:
            path.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def open_passage(path: Path, closing: anyio.Event) -> AsyncIterator[Passage]:
    """The way there: ``async with open_passage(path, closing) as app``.

    :param closing: when it is set, answers that have no end are broken off.
    """
    # The transport by itself: a client would write every URL to its log, and webhook tokens are in URLs.
    async with httpx.AsyncHTTPTransport(uds=str(path)) as transport:
        yield Passage(transport, closing)


class Passage:
    """An ASGI application that passes on what it is asked. Made by :func:`open_passage`."""

    def __init__(self, transport: httpx.AsyncBaseTransport, closing: anyio.Event) -> None:
        self._transport = transport
        self._closing = closing

    async def is_open(self) -> bool:
        """Whether there is somebody at its end."""
        try:
            with anyio.fail_after(CONNECT_SECONDS):
                response = await self._transport.handle_async_request(httpx.Request("GET", "http://listener/healthz"))
                await response.aread()
                return response.status_code == 200
        except (httpx.HTTPError, TimeoutError):
            return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _read(receive)
        except ClientDisconnect:
            return
        if body is None:
            await JSONResponse({"error": f"a request has at most {MAX_BODY} bytes"}, 413)(scope, receive, send)
            return
        url = httpx.URL("http://listener", raw_path=_target(scope))
        headers = [(name, value) for name, value in scope["headers"] if name not in _BETWEEN_NEIGHBOURS]
        if scope.get("client"):
            # It comes from this socket now, where the word of whoever has passed it on counts.
            headers.append((b"x-forwarded-for", scope["client"][0].encode()))
        request = httpx.Request(scope["method"], url, headers=headers, content=body)
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                response = await self._transport.handle_async_request(request)
        except (httpx.HTTPError, TimeoutError) as exc:
            logger.warning("the listener, in another process of this server, does not answer: %s", type(exc).__name__)
            gone = JSONResponse({"error": "the listener does not answer"}, 503, headers={"Retry-After": "5"})
            await gone(scope, receive, send)
            return
        await self._hand_back(response, receive, send)

    async def _hand_back(self, response: httpx.Response, receive: Receive, send: Send) -> None:
        """Until the answer is complete, or somebody at either end has gone."""
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        kept = [(name, value) for name, value in headers if name not in _BETWEEN_NEIGHBOURS - {b"content-length"}]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_gone, receive, tasks.cancel_scope)
            tasks.start_soon(self._cancel_when_closing, tasks.cancel_scope)
            try:
                await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
                with contextlib.suppress(httpx.HTTPError, httpx.StreamError):
                    async for chunk in response.aiter_raw():
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    await send({"type": "http.response.body", "body": b""})
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()
            tasks.cancel_scope.cancel()

    async def _cancel_when_closing(self, scope: anyio.CancelScope) -> None:
        await self._closing.wait()
        scope.cancel()


async def _cancel_when_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _target(scope: Scope) -> bytes:
    query: bytes = scope["query_string"]
    path: bytes = scope["raw_path"]
    return path + (b"?" + query if query else b"")


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None if it is too long."""
    body = b""
    message: Message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
    return body

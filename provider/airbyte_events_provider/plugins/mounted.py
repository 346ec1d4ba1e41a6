"""The listener within Airflow's API server, for those who want no further process.

Airflow runs the lifespan of a FastAPI application that a plugin mounts, and no other's: so that is what this is. An API
server can have several worker processes. A database they share, and each of them is a listener. A file has one owner:
whichever worker gets it is the listener, the others pass on to it what they are asked, and one of them takes over when
it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airbyte_events import __version__
from airbyte_events.errors import AirbyteEventsError, SettingsError, StoreLocked
from airbyte_events.listener.assembly import assemble
from airbyte_events.listener.settings import Settings, load
from airbyte_events_provider.plugins.unix_proxy import Passage, open_passage, passage_path, serve_passage

logger = logging.getLogger(__name__)

TAKEOVER_SECONDS = 2.0
"""So often a worker tries to become the listener."""

RETRY_SECONDS = 15.0
"""After so long a listener that failed is begun anew."""

START_SECONDS = 5.0
"""So long the API server waits for it at its own start, and no longer."""

PARSER = (
    "this server parses HTTP with httptools, which loses the body of a request that offers an upgrade to HTTP/2, as "
    "Airbyte's webhooks do over plain HTTP: have Airbyte send to a TLS proxy in front of it (https://), or run the "
    "listener as a process of its own (airbyte-events serve)"
)


def load_settings() -> Settings:
    """The listener's own settings, for one that other machines reach: it has tokens.

    :raises SettingsError: if there is something wrong with them.
    """
    # Airflow decides where its API server listens. This one is the strictest answer.
    settings = load(host="0.0.0.0")  # noqa: S104
    # It has no address of its own, so neither has its receiver.
    return settings.model_copy(update={"webhook_host": None, "webhook_port": None})


class MountedListener(FastAPI):
    """The listener's application, to be mounted.

    :param load_settings: raises SettingsError if there is something wrong with them.
    """

    def __init__(self, load_settings: Callable[[], Settings] = load_settings) -> None:
        super().__init__(lifespan=self._running, openapi_url=None)
        self._load_settings = load_settings
        self._target: ASGIApp | None = None
        self._role = "starting"
        self._loses_bodies = server_loses_bodies()
        self._told_at = float("-inf")

    @contextlib.asynccontextmanager
    async def _running(self, app: FastAPI) -> AsyncIterator[None]:
        self._settled, self._closing = anyio.Event(), anyio.Event()
        if self._loses_bodies:
            logger.warning("the mounted listener: %s", PARSER)
        loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep)
            with anyio.move_on_after(START_SECONDS):
                await self._settled.wait()
            # Streams have no end of their own, and the server waits for them before it ends its lifespan.
            with _at_signal(lambda: loop.call_soon_threadsafe(self._closing.set)):
                yield
            self._closing.set()
            with anyio.move_on_after(RETRY_SECONDS):
                await self._ended.wait()
            tasks.cancel_scope.cancel()

    async def _keep(self) -> None:
        """Be the listener, or pass on to it; Airflow's API server is to live whatever happens here."""
        self._ended = anyio.Event()
        try:
            settings = self._load_settings()
            if settings.store.kind == "memory":
                raise SettingsError(
                    "AIRBYTE_EVENTS_STORE: each worker of an API server would have a memory of its own; "
                    "for example AIRBYTE_EVENTS_STORE=sqlite:////var/lib/airbyte-events/events.db"
                )
            path = None if settings.store.path is None else passage_path(settings.store.path)
            while not self._closing.is_set():
                try:
                    await self._listen(settings, path)
                except StoreLocked:
                    if path is not None:
                        await self._pass_on(path)
        except SettingsError as exc:
            self._fail(f"it does not start: {exc}")
        finally:
            self._ended.set()

    async def _listen(self, settings: Settings, path: Path | None) -> None:
        """:param path: where others pass on to it, if they have to."""
        try:
            async with (
                assemble(settings) as listener,
                contextlib.nullcontext() if path is None else serve_passage(listener.app, path),
            ):
                logger.info("the mounted listener: this process is it; its store is %s", settings.store)
                with self._answering("listening", listener.app):
                    await self._closing.wait()
                    listener.drain()
        except StoreLocked:
            raise
        except AirbyteEventsError as exc:
            self._fail(str(exc))
        except Exception as exc:
            self._fail(f"{type(exc).__name__}: {exc}", exc)
        else:
            return
        with anyio.move_on_after(RETRY_SECONDS):
            await self._closing.wait()

    async def _pass_on(self, path: Path) -> None:
        """Until it is worth another try to be the listener."""
        if self._role != "passing on":
            logger.info("the mounted listener: another process is it, and this one passes on to that")
        async with open_passage(path, self._closing) as passage:
            with self._answering("passing on", passage):
                # As long as there is somebody at its end, the store is in use.
                there = True
                while there and not self._closing.is_set():
                    with anyio.move_on_after(TAKEOVER_SECONDS):
                        await self._closing.wait()
                    there = await passage.is_open()

    @contextlib.contextmanager
    def _answering(self, role: str, target: ASGIApp | Passage) -> Iterator[None]:
        self._role, self._target = role, target
        self._settled.set()
        try:
            yield
        finally:
            self._target = None

    def _fail(self, fault: str, exc: Exception | None = None) -> None:
        self._role = "failed"
        logger.error("the mounted listener: %s", fault, exc_info=exc)
        self._settled.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        inner = _unmounted(scope)
        if inner["path"] == "/healthz":
            await self._health()(scope, receive, send)
            return
        if inner["path"].startswith("/webhooks/"):
            _hide_token(scope)
            first = await receive()
            if _has_lost_its_body(scope, first):
                self._tell_of_loss()
                await JSONResponse({"error": f"the body did not arrive: {PARSER}"}, 400)(scope, receive, send)
                return
            receive = _again(first, receive)
        target: ASGIApp = self._target or _unavailable
        await target(inner, receive, send)

    def _health(self) -> JSONResponse:
        warnings = [PARSER] if self._loses_bodies else []
        return JSONResponse({"status": "ok", "version": __version__, "role": self._role, "warnings": warnings})

    def _tell_of_loss(self) -> None:
        now = anyio.current_time()
        if now - self._told_at > 600:
            self._told_at = now
            logger.error("a webhook of Airbyte's came without its body: %s", PARSER)


def server_loses_bodies() -> bool:
    """Whether uvicorn's own choice of a parser, which is Airflow's, is the one that loses bodies."""
    try:
        from uvicorn.protocols.http.auto import AutoHTTPProtocol
    except ImportError:
        return False
    return AutoHTTPProtocol.__name__ == "HttpToolsProtocol"


def _unmounted(scope: Scope) -> dict[str, Any]:
    """The request as the listener would have got it without Airflow around it."""
    path, root = scope["path"], scope.get("root_path", "")
    if not path.startswith(root):
        # A proxy has taken the path of Airflow's base URL away, which Airflow puts before it all the same.
        root = "/" + root.rpartition("/")[2]
    path = path.removeprefix(root)
    return {**scope, "path": path, "raw_path": quote(path).encode(), "root_path": ""}


def _hide_token(scope: MutableMapping[str, Any]) -> None:
    """Take the webhook token out of what the server and Airflow write to their access logs, after the request."""
    kept, _, _ = scope["path"].partition("/webhooks/")
    scope["path"] = f"{kept}/webhooks/HIDDEN"
    scope["raw_path"] = scope["path"].encode()


def _has_lost_its_body(scope: Scope, first: Message) -> bool:
    if first["type"] != "http.request" or first.get("body") or first.get("more_body"):
        return False
    headers = dict(scope["headers"])
    return b"h2c" in headers.get(b"upgrade", b"").lower() and headers.get(b"content-length", b"1") != b"0"


def _again(first: Message, receive: Receive) -> Receive:
    """Receive what was received already, then what follows."""
    messages = [first]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


async def _unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    refusal = JSONResponse(
        {"error": "the listener does not run at the moment; the API server's log tells why"},
        status_code=503,
        headers={"Retry-After": "5"},
    )
    await refusal(scope, receive, send)


@contextlib.contextmanager
def _at_signal(tell: Callable[[], object]) -> Iterator[None]:
    """Tell it, too, when a signal ends the server; what the server does then is as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    replaced = {number: action for number, action in before.items() if callable(action)}
    for number, action in replaced.items():
        signal.signal(number, partial(_both, tell, action))
    try:
        yield
    finally:
        for number, action in replaced.items():
            signal.signal(number, action)


def _both(tell: Callable[[], object], action: Callable[..., Any], number: int, frame: object) -> None:
    tell()
    action(number, frame)

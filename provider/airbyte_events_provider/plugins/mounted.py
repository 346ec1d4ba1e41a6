"""The listener within Airflow's API server.

:class:`MountedListener` is a FastAPI application because Airflow runs only the lifespans of those. The API server must
have one worker process: each worker would run its own listener.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from functools import partial
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

logger = logging.getLogger(__name__)

RETRY_SECONDS = 15.0
"""Seconds after which a listener that failed is started again."""

START_SECONDS = 5.0
"""The maximum delay of the API server's start."""

PARSER = (
    "this server parses HTTP with httptools, which loses the body of a request that offers an upgrade to HTTP/2, as "
    "Airbyte's webhooks do over plain HTTP: have Airbyte send to a TLS proxy in front of it (https://), or run the "
    "listener as a process of its own (airbyte-events serve)"
)


def load_settings() -> Settings:
    """Return the listener's settings, with tokens required as for a listener on a public address.

    :raises SettingsError: if a setting is wrong or missing.
    """
    # Airflow configures the address of its API server; assume all interfaces.
    settings = load(host="0.0.0.0")  # noqa: S104
    # The mounted listener has no separate address for webhooks.
    return settings.model_copy(update={"webhook_host": None, "webhook_port": None})


class MountedListener(FastAPI):
    """The listener as an application to mount.

    :param load_settings: returns the settings; raises SettingsError.
    """

    def __init__(self, load_settings: Callable[[], Settings] = load_settings) -> None:
        super().__init__(lifespan=self._running, openapi_url=None)
        self._load_settings = load_settings
        self._target: ASGIApp = _unavailable
        self._role = "starting"
        self._loses_bodies = server_loses_bodies()
        self._loss_logged_at = float("-inf")

    @contextlib.asynccontextmanager
    async def _running(self, app: FastAPI) -> AsyncIterator[None]:
        self._settled, self._closing, ended = anyio.Event(), anyio.Event(), anyio.Event()
        if self._loses_bodies:
            logger.warning("mounted listener: %s", PARSER)
        loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_listening, ended)
            with anyio.move_on_after(START_SECONDS):
                await self._settled.wait()
            # The server waits for open feeds before it ends its lifespan, so they close at the signal.
            with _calling_at_signal(lambda: loop.call_soon_threadsafe(self._closing.set)):
                yield
            self._closing.set()
            with anyio.move_on_after(RETRY_SECONDS):
                await ended.wait()
            tasks.cancel_scope.cancel()

    async def _keep_listening(self, ended: anyio.Event) -> None:
        """Run the listener, and restart it after failures, which never end the API server."""
        try:
            settings = self._load_settings()
            if not settings.store.durable:
                raise SettingsError(
                    "AIRBYTE_EVENTS_STORE=memory: loses webhooks with each restart of the API server: name a file or a "
                    "database, for example AIRBYTE_EVENTS_STORE=sqlite:////var/lib/airbyte-events/events.db"
                )
            while not self._closing.is_set():
                await self._listen(settings)
        except SettingsError as exc:
            self._fail(f"not started: {exc}")
        finally:
            ended.set()

    async def _listen(self, settings: Settings) -> None:
        try:
            async with assemble(settings) as listener:
                logger.info("mounted listener started: store=%s", settings.store)
                self._role, self._target = "listening", listener.app
                self._settled.set()
                await self._closing.wait()
                listener.drain()
            return
        except StoreLocked as exc:
            self._fail(f"{exc}. Give the API server one worker ([api] workers = 1), or run airbyte-events serve")
        except AirbyteEventsError as exc:
            self._fail(str(exc))
        except Exception as exc:
            self._fail(f"{type(exc).__name__}: {exc}", exc)
        finally:
            self._target = _unavailable
        with anyio.move_on_after(RETRY_SECONDS):
            await self._closing.wait()

    def _fail(self, fault: str, exc: Exception | None = None) -> None:
        self._role = "failed"
        logger.error("mounted listener failed: %s", fault, exc_info=exc)
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
            warnings = [PARSER] if self._loses_bodies else []
            health = {"status": "ok", "version": __version__, "role": self._role, "warnings": warnings}
            await JSONResponse(health)(scope, receive, send)
            return
        if inner["path"].startswith("/webhooks/"):
            _hide_token(scope)
            first = await receive()
            if _has_lost_its_body(scope, first):
                now = anyio.current_time()
                if now - self._loss_logged_at > 600:
                    self._loss_logged_at = now
                    logger.error("webhook arrived without its body: %s", PARSER)
                await JSONResponse({"error": f"the body did not arrive: {PARSER}"}, 400)(scope, receive, send)
                return
            receive = _with_first(first, receive)
        await self._target(inner, receive, send)


def server_loses_bodies() -> bool:
    """Return whether uvicorn's default parser, which Airflow uses, is httptools, which loses bodies."""
    try:
        from uvicorn.protocols.http.auto import AutoHTTPProtocol
    except ImportError:
        return False
    return AutoHTTPProtocol.__name__ == "HttpToolsProtocol"


def _unmounted(scope: Scope) -> dict[str, Any]:
    path, root = scope["path"], scope.get("root_path", "")
    if not path.startswith(root):
        # A proxy has removed the path of Airflow's base URL, which is still in root_path.
        root = "/" + root.rpartition("/")[2]
    path = path.removeprefix(root)
    return {**scope, "path": path, "raw_path": quote(path).encode(), "root_path": ""}


def _hide_token(scope: MutableMapping[str, Any]) -> None:
    """Keep the webhook token out of the access logs of the server and Airflow."""
    before, _, _ = scope["path"].partition("/webhooks/")
    scope["path"] = f"{before}/webhooks/HIDDEN"
    scope["raw_path"] = scope["path"].encode()


def _has_lost_its_body(scope: Scope, first: Message) -> bool:
    if first["type"] != "http.request" or first.get("body") or first.get("more_body"):
        return False
    headers = dict(scope["headers"])
    return b"h2c" in headers.get(b"upgrade", b"").lower() and headers.get(b"content-length", b"1") != b"0"


def _with_first(first: Message, receive: Receive) -> Receive:
    messages = [first]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


async def _unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    error = {"error": "the listener is not running: see the API server's log"}
    await JSONResponse(error, 503, headers={"Retry-After": "5"})(scope, receive, send)


@contextlib.contextmanager
def _calling_at_signal(call: Callable[[], object]) -> Iterator[None]:
    """Call a function at a signal that ends the server, before the server's own handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    replaced = {number: action for number, action in before.items() if callable(action)}
    for number, action in replaced.items():
        signal.signal(number, partial(_call_both, call, action))
    try:
        yield
    finally:
        for number, action in replaced.items():
            signal.signal(number, action)


def _call_both(call: Callable[[], object], action: Callable[..., Any], number: int, frame: object) -> None:
    call()
    action(number, frame)

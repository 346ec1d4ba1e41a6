"""The listener process: settings become a store, a bus, sources and a server, until a signal ends them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
import anyio.abc
import httpx
from pydantic import SecretStr
from starlette.types import ASGIApp

from airbyte_events import __version__
from airbyte_events.airbyte import AirbyteClient, Credentials
from airbyte_events.api import API
from airbyte_events.app import create_app
from airbyte_events.auth import Tokens, digest_of, new_token
from airbyte_events.bus import EventBus
from airbyte_events.errors import SettingsError
from airbyte_events.feed import Feed
from airbyte_events.inbox import Inbox
from airbyte_events.monitor import Monitor
from airbyte_events.polling import Poller, Ticks
from airbyte_events.server import Server, bind, url_of
from airbyte_events.settings import InstanceSettings, Settings
from airbyte_events.store import EventStore
from airbyte_events.store.memory import MemoryStore
from airbyte_events.store.sqlite import SQLiteStore
from airbyte_events.webhook import Receiver

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 4
"""What is under way when a signal comes has so long to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """An assembled listener, whose sources run.

    :param app: everything but what ``receiver_app`` has.
    :param receiver_app: the webhook receiver, where it has an address of its own.
    :param bus: closing it ends every stream.
    :param new_tokens: tokens that were made just now, by what they open: ``webhook``, ``api``.
    """

    app: ASGIApp
    receiver_app: ASGIApp | None
    bus: EventBus
    new_tokens: dict[str, str]


@contextlib.asynccontextmanager
async def assemble(settings: Settings) -> AsyncIterator[Listener]:
    """Everything but the server: ``async with assemble(settings) as listener``.

    :raises StoreError: if the store can't be opened.
    """
    async with (
        _open_store(settings) as store,
        EventBus(store) as bus,
        httpx.AsyncClient(follow_redirects=False) as http,
    ):
        new_tokens: dict[str, str] = {}
        webhook_tokens = await _tokens(store, "webhook", settings.webhook_tokens, new_tokens)
        api_tokens = await _tokens(store, "api", settings.api_tokens, new_tokens)
        ticks = Ticks(
            unproven=settings.poll_interval,
            proven=max(settings.poll_interval, settings.poll_interval_proven),
            idle=max(settings.poll_interval, settings.poll_interval_idle),
        )
        monitors = {name: Monitor(name, _client(http, each), store) for name, each in settings.instances.items()}
        inboxes = {name: Inbox(monitor, store) for name, monitor in monitors.items()}
        pollers = {name: Poller(monitor, ticks) for name, monitor in monitors.items()}
        receiver = Receiver(store, inboxes, webhook_tokens)
        feed = Feed(bus, store, {name: monitor.airbyte.url for name, monitor in monitors.items()})

        def unready() -> dict[str, str]:
            faults = {}
            if bus.closed:
                faults["listener"] = "is shutting down"
            if not bus.healthy:
                faults["store"] = "can't be read"
            return faults

        apart = settings.webhook_apart is not None
        listener = Listener(
            app=create_app(API(feed, monitors, inboxes), None if apart else receiver, api_tokens, unready),
            receiver_app=receiver if apart else None,
            bus=bus,
            new_tokens=new_tokens,
        )
        async with anyio.create_task_group() as sources:
            for name in monitors:
                sources.start_soon(inboxes[name].run)
                sources.start_soon(pollers[name].run)
            yield listener
            sources.cancel_scope.cancel()


def run(settings: Settings) -> int:
    """Run a listener until SIGTERM or SIGINT.

    :return: the exit code, 0 after an orderly end.
    :raises SettingsError: if it can't listen where it should.
    :raises StoreError: if the store can't be opened.
    """
    _configure_logging(settings.log_level)
    with contextlib.ExitStack() as stack:
        wanted = [(settings.host, settings.port), *([settings.webhook_apart] if settings.webhook_apart else [])]
        bound = [stack.enter_context(_bind(*address)) for address in wanted]
        anyio.run(_serve, settings, bound)
    return 0


async def _serve(settings: Settings, bound: list[socket.socket]) -> None:
    # The signals first: one that comes while the store opens waits there.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with assemble(settings) as listener:
            apps = [listener.app, *([listener.receiver_app] if listener.receiver_app else [])]
            servers = [
                Server(
                    app,
                    timeout_graceful_shutdown=DRAIN_SECONDS,
                    ssl_certfile=settings.tls_certfile,
                    ssl_keyfile=settings.tls_keyfile,
                )
                for app in apps
            ]
            scheme = "https" if settings.tls_certfile else "http"
            _announce(settings, listener, [url_of(each, scheme=scheme) for each in bound])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_stop_on_signal, signals, listener.bus, servers)
                async with anyio.create_task_group() as serving:
                    for server, where in zip(servers, bound, strict=True):
                        serving.start_soon(server.serve, [where])
                tasks.cancel_scope.cancel()
    logger.info("stopped")


async def _stop_on_signal(signals: AsyncIterator[signal.Signals], bus: EventBus, servers: list[Server]) -> None:
    first = await anext(signals)
    # The second one is not left to the event loop: it works whatever that is busy with, until the very end.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _exit_at_once)
    logger.info("%s: finishing what is under way; once more to stop at once", first.name)
    bus.close()
    for server in servers:
        server.should_exit = True


def _exit_at_once(number: int, frame: object) -> None:
    os.write(sys.stderr.fileno(), f"{signal.Signals(number).name} again: stopping at once\n".encode())
    os._exit(128 + number)


@contextlib.asynccontextmanager
async def _open_store(settings: Settings) -> AsyncIterator[EventStore]:
    store: EventStore = MemoryStore() if settings.store.path is None else SQLiteStore(settings.store.path)
    async with store:
        yield store


async def _tokens(store: EventStore, name: str, given: tuple[SecretStr, ...], new: dict[str, str]) -> Tokens:
    if given:
        return Tokens(digest_of(token.get_secret_value()) for token in given)
    # Made once and shown once; what is kept is a digest.
    digest = await store.recall(f"{name}_token")
    if digest is None:
        new[name] = new_token()
        digest = digest_of(new[name])
        await store.remember(f"{name}_token", digest)
    return Tokens([digest])


def _client(http: httpx.AsyncClient, instance: InstanceSettings) -> AirbyteClient:
    credentials = None
    if instance.client_id is not None and instance.client_secret is not None:
        credentials = Credentials(client_id=instance.client_id, client_secret=instance.client_secret.get_secret_value())
    return AirbyteClient(
        http,
        instance.airbyte_url,
        credentials=credentials,
        token_url=instance.token_url,
        workspace_ids=instance.workspace_ids,
    )


def _bind(host: str, port: int) -> socket.socket:
    try:
        return bind(host, port)
    except OSError as exc:
        raise SettingsError(
            f"can't listen on {host} port {port}: {exc.strerror}; set AIRBYTE_EVENTS_HOST and AIRBYTE_EVENTS_PORT,"
            " for example AIRBYTE_EVENTS_PORT=8485"
        ) from exc


def _announce(settings: Settings, listener: Listener, addresses: list[str]) -> None:
    """Say on standard output what runs and how to reach it; tokens that were made just now are shown here only."""
    webhook = listener.new_tokens.get("webhook", "<webhook token>")
    lines = [
        f"airbyte-events {__version__} listens on {' and '.join(addresses)}",
        f"  store      {settings.store}",
    ]
    for name, instance in settings.instances.items():
        lines.append(f"  Airbyte    {instance.airbyte_url} ({name})")
        lines.append(f"  webhooks   {addresses[-1]}/webhooks/{name}/{webhook}")
    if "api" in listener.new_tokens:
        lines.append(f"  API token  {listener.new_tokens['api']}")
    if listener.new_tokens:
        lines.append("  The tokens above were made just now and are not shown again.")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _not_cut_off(record: logging.LogRecord) -> bool:
    """No traceback for each request that a drain cuts off: one line says how many there were."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _configure_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", force=True
    )
    for library in ("httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # It warns twice of every POST of Airbyte's: that an upgrade is offered, and that it is not taken.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_not_cut_off)

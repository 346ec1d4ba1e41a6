"""The listener process: bind, serve until a signal, drain."""

from __future__ import annotations

import contextlib
import gc
import logging
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import anyio

from airbyte_events._utils.supervision import supervise
from airbyte_events.errors import SettingsError
from airbyte_events.listener.assembly import assemble, http_client
from airbyte_events.listener.http.app import requests_for, streams_of
from airbyte_events.listener.logging import configure_logging
from airbyte_events.listener.secrets import airbyte_client
from airbyte_events.listener.settings import Settings
from airbyte_events.listener.startup import announce, report
from airbyte_events.web.h11_protocol import MAX_CONNECTIONS
from airbyte_events.web.server import Server, allow_open_files, bind, connections_for, limits_for, url_of
from airbyte_events.web.shutdown import on_signal
from airbyte_events.web.tls import Certificate

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 4
"""Requests in flight may take this long to finish after a signal."""


Greet = Callable[[], Coroutine[Any, Any, None]]
"""Runs once the listener accepts requests."""


def run(settings: Settings, reload: Callable[[], Settings], *, log_in: bool = False, greet: Greet | None = None) -> int:
    """Run a listener until SIGTERM or SIGINT.

    :param reload: reads the settings again, for changed secrets.
    :param log_in: whether the dashboard's address is shown with a code for one log-in.
    :param greet: called once requests are accepted, and cancelled by a signal.
    :return: the exit code: 0 after an orderly shutdown.
    :raises SettingsError: if an address can't be bound.
    :raises StoreError: if the store can't be opened.
    """
    configure_logging(settings.log_level, settings.log_format)
    certificate = None
    if settings.tls_certfile is not None:
        certificate = Certificate(settings.tls_certfile, settings.tls_keyfile)
    with contextlib.ExitStack() as stack:
        addresses = [(settings.host, settings.port), *([settings.webhook_apart] if settings.webhook_apart else [])]
        bound = [stack.enter_context(_bind(*address)) for address in addresses]
        anyio.run(_serve, settings, reload, bound, certificate, log_in, greet)
    return 0


async def _serve(
    settings: Settings,
    reload: Callable[[], Settings],
    bound: list[socket.socket],
    certificate: Certificate | None,
    log_in: bool,
    greet: Greet | None,
) -> None:
    files = allow_open_files()
    connections = connections_for(files, len(bound))
    if connections < MAX_CONNECTIONS:
        logger.warning(
            "the limit of open files reduces the capacity, raise it with ulimit -n or LimitNOFILE of systemd:"
            " files=%d connections=%d of %d streams=%d",
            *(files, connections, MAX_CONNECTIONS, streams_of(requests_for(connections))),
        )
    # Before the store is opened: a signal during that cancels it.
    with anyio.CancelScope() as opening:
        on_signal(opening.cancel)
        async with assemble(settings, certificate=certificate, connections=connections) as listener:
            apps = [listener.app, *([listener.receiver_app] if listener.receiver_app else [])]
            tls = None if certificate is None else certificate.context
            servers = [
                Server(app, limits=limits_for(files, len(bound)), timeout_graceful_shutdown=DRAIN_SECONDS, tls=tls)
                for app in apps
            ]

            def shut_down() -> None:
                listener.drain()
                for server in servers:
                    server.should_exit = True

            on_signal(shut_down)
            scheme = "http" if certificate is None else "https"
            addresses = [url_of(each, scheme=scheme) for each in bound]
            announce(settings, listener.new_tokens, addresses, listener.sessions.new_code() if log_in else None)
            # Exclude what is loaded from garbage collection. Under load, each full collection of it would block the
            # event loop for about 70 ms.
            gc.freeze()
            async with http_client() as http, anyio.create_task_group() as tasks:
                faults = listener.election.faults
                systems = {name: airbyte_client(http, each, attempts=1) for name, each in settings.instances.items()}
                # The greeting says what to do next.
                reports = partial(report, settings, systems, listener.store, remedy=greet is None)
                tasks.start_soon(supervise, "startup report", reports, faults)
                tasks.start_soon(supervise, "secrets", partial(listener.secrets.follow, reload), faults)
                if greet is not None:
                    tasks.start_soon(greet)
                async with anyio.create_task_group() as serving:
                    for server, address in zip(servers, bound, strict=True):
                        serving.start_soon(server.serve, [address])
                tasks.cancel_scope.cancel()
    logger.info("stopped")


def _bind(host: str, port: int) -> socket.socket:
    try:
        return bind(host, port)
    except OSError as exc:
        raise SettingsError(
            f"can't listen on {host} port {port}: {exc.strerror}; set AIRBYTE_EVENTS_HOST and AIRBYTE_EVENTS_PORT,"
            " for example AIRBYTE_EVENTS_PORT=8485"
        ) from exc

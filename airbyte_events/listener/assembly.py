"""The listener process: settings become a store, a bus, pipelines and a server, until a signal ends them."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import anyio.abc
import httpx
from pydantic import SecretStr
from starlette.types import ASGIApp
from structlog.contextvars import bound_contextvars

from airbyte_events._utils.http import no_cookies
from airbyte_events._utils.proxies import async_client
from airbyte_events._utils.supervision import supervise
from airbyte_events._utils.tracing import record
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.bus.bus import EventBus
from airbyte_events.errors import LeaseLost, SettingsError, StoreError
from airbyte_events.listener.forwarding.forwarder import Forwarder
from airbyte_events.listener.forwarding.targets import Targets, refuse_loops
from airbyte_events.listener.http.api import API
from airbyte_events.listener.http.app import create_app, requests_for, streams_of
from airbyte_events.listener.http.feed import Feed
from airbyte_events.listener.http.metrics import Metrics, MetricsPage
from airbyte_events.listener.http.receiver import Receiver
from airbyte_events.listener.http.status import Status
from airbyte_events.listener.leader import LeaderElection, LeaderTask
from airbyte_events.listener.logging import configure_logging, log_event
from airbyte_events.listener.pipeline import Pipeline
from airbyte_events.listener.secrets import Secrets, credentials_of, digests_of
from airbyte_events.listener.settings import InstanceSettings, Settings
from airbyte_events.listener.startup import announce, report
from airbyte_events.monitor.poller import Ticks
from airbyte_events.store.base import EventStore
from airbyte_events.store.health import StoreHealth
from airbyte_events.store.records import Lease
from airbyte_events.store.retention import Retention
from airbyte_events.web.auth import Tokens, digest_of, new_token
from airbyte_events.web.h11_protocol import MAX_CONNECTIONS
from airbyte_events.web.rate_limit import ClientAccess
from airbyte_events.web.security_headers import SecurityHeaders
from airbyte_events.web.server import Server, allow_open_files, bind, connections_for, limits_for, url_of
from airbyte_events.web.signals import on_signal
from airbyte_events.web.tls import Certificate

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 4
"""What is under way when a signal comes has so long to end."""

_TOKEN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """An assembled listener, whose pipelines run unless another one that shares the store runs them.

    :param app: everything but what ``receiver_app`` has.
    :param receiver_app: the webhook receiver, where it has an address of its own.
    :param store: what it keeps its events in.
    :param bus: closing it ends every stream.
    :param election: what it does alone of all that share the store.
    :param new_tokens: tokens that were made just now, by what they open: ``webhook``, ``api``.
    :param secrets: those in use.
    """

    app: ASGIApp
    receiver_app: ASGIApp | None
    store: EventStore
    bus: EventBus
    election: LeaderElection
    new_tokens: dict[str, str]
    secrets: Secrets

    def drain(self) -> None:
        """End every stream, and leave to others what they can do."""
        self.bus.close()
        self.election.stop()


def _work(pipelines: Pipeline, forwarder: Forwarder) -> LeaderTask:
    """What is done for an instance by the one listener that holds its lease."""

    async def work(lease: Lease) -> None:
        with bound_contextvars(instance=pipelines.instance):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(forwarder.run)
                await pipelines.run(lease)
                tasks.cancel_scope.cancel()

    return work


async def _tell(bus: EventBus, metrics: Metrics, pipelines: Mapping[str, Pipeline]) -> None:
    """Count and log what enters the log, until cancelled or the bus closes."""
    while not bus.closed:
        # What can't be read any more is not told: that is no reason for the listener to end.
        with contextlib.suppress(StoreError), bus.subscribe(own=True) as events:
            async for event in events:
                metrics.take(event)
                instance = pipelines.get(event.ref.instance)
                here = instance is not None and instance.monitor is not None
                log_event(event, found_here=here)
                if here:
                    since = event.finished_at or event.observed_at
                    record("event", event.ref, since, status=event.status.value, origin=event.origin.value)
        await anyio.sleep(0 if bus.closed else 1)


@contextlib.asynccontextmanager
async def assemble(
    settings: Settings,
    *,
    store: EventStore | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    certificate: Certificate | None = None,
    connections: int = MAX_CONNECTIONS,
) -> AsyncIterator[Listener]:
    """Everything but the server: ``async with assemble(settings) as listener``.

    :param store: in place of the one that the settings name.
    :param transport: what Airbyte is asked by; sockets unless given.
    :param certificate: the one that it is served with.
    :param connections: how many the server has.
    :raises StoreError: if the store can't be opened.
    :raises SettingsError: if it would forward to itself.
    """
    async with (
        settings.store.store() if store is None else store as store,
        EventBus(store) as bus,
        contextlib.AsyncExitStack() as stack,
    ):
        metrics = Metrics(settings.instances)
        options: dict[str, Any] = {"transport": transport, "verify": httpx.create_ssl_context()}
        clients = {
            name: _client(await stack.enter_async_context(_http(**options)), each, on_request=metrics.requests(name))
            for name, each in settings.instances.items()
        }
        new_tokens: dict[str, str] = {}
        webhook_tokens = await _tokens(store, "webhook", settings.webhook_tokens, new_tokens)
        api_tokens = await _tokens(store, "api", settings.api_tokens, new_tokens)
        metrics_tokens = Tokens(digests_of(settings.metrics_tokens)) if settings.metrics_tokens else None
        ticks = Ticks(
            unproven=settings.poll_interval,
            proven=max(settings.poll_interval, settings.poll_interval_proven),
            idle=max(settings.poll_interval, settings.poll_interval_idle),
        )
        pipelines = {name: Pipeline(name, each, store, ticks) for name, each in clients.items()}
        targets = {
            name: Targets(url.get_secret_value() for url in each.forward_urls)
            for name, each in settings.instances.items()
        }
        refuse_loops(targets, webhook_tokens.accepts)
        works = {
            f"sources/{name}": _work(each, Forwarder(name, targets[name], store)) for name, each in pipelines.items()
        }
        retention = Retention(store, age=timedelta(days=settings.retain_days), events=settings.retain_events)
        works["retention"] = retention.run
        health = StoreHealth(store)
        election = LeaderElection(store, works, health={f"sources/{name}": each for name, each in pipelines.items()})
        access = ClientAccess(proxies=settings.trusted_proxies, allowed=settings.webhook_allow)
        receiver = metrics.measured(
            Receiver(store, pipelines, webhook_tokens, access, targets, health.doubt, metrics.commits.observe)
        )
        most_requests = requests_for(connections)
        feed = Feed(
            bus,
            store,
            {name: each.airbyte.url for name, each in pipelines.items()},
            most_streams=streams_of(most_requests),
        )

        def unready() -> dict[str, str]:
            faults = {}
            if bus.closed:
                faults["listener"] = "is shutting down"
            if not bus.healthy:
                faults["store"] = "can't be read"
            elif not health.writable:
                faults["store"] = "can't be written"
            return faults | election.faults

        apart = settings.webhook_apart is not None
        listener = Listener(
            app=create_app(
                API(feed, pipelines, targets),
                Status(store, bus, pipelines, election, unready, metrics.webhook_answers),
                MetricsPage(metrics, store, feed, pipelines, election, unready),
                None if apart else receiver,
                api_tokens,
                unready,
                access,
                hopeless=lambda: health.hopeless,
                metrics_tokens=metrics_tokens,
                most_requests=most_requests,
            ),
            receiver_app=SecurityHeaders(receiver) if apart else None,
            store=store,
            bus=bus,
            election=election,
            new_tokens=new_tokens,
            secrets=Secrets(
                webhook_tokens=webhook_tokens,
                api_tokens=api_tokens,
                metrics_tokens=metrics_tokens,
                authenticate={name: client.authenticate for name, client in clients.items()},
                certificate=certificate,
            ),
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervise, "the store's health", health.run, election.faults)
            tasks.start_soon(supervise, "leases", election.run, election.faults)
            tasks.start_soon(supervise, "metrics", partial(_tell, bus, metrics, pipelines), election.faults)
            yield listener
            tasks.cancel_scope.cancel()


def run(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Run a listener until SIGTERM or SIGINT.

    :param reload: reads the settings anew, for secrets that have changed.
    :return: the exit code, 0 after an orderly end.
    :raises SettingsError: if it can't listen where it should.
    :raises StoreError: if the store can't be opened.
    """
    configure_logging(settings.log_level, settings.log_format)
    certificate = None
    if settings.tls_certfile is not None:
        certificate = Certificate(settings.tls_certfile, settings.tls_keyfile)
    files = allow_open_files()
    with contextlib.ExitStack() as stack:
        wanted = [(settings.host, settings.port), *([settings.webhook_apart] if settings.webhook_apart else [])]
        bound = [stack.enter_context(_bind(*address)) for address in wanted]
        most = connections_for(files, len(bound))
        if most < MAX_CONNECTIONS:
            logger.warning(
                "%d files may be open, which is enough for %d connections instead of %d, and %d streams: raise it with"
                " ulimit -n, or LimitNOFILE of a systemd unit",
                *(files, most, MAX_CONNECTIONS, streams_of(requests_for(most))),
            )
        anyio.run(_serve, settings, reload, bound, certificate, files)
    return 0


async def _serve(
    settings: Settings,
    reload: Callable[[], Settings],
    bound: list[socket.socket],
    certificate: Certificate | None,
    files: int,
) -> None:
    # The signals first: one that comes while the store opens ends that.
    with anyio.CancelScope() as opening:
        on_signal(opening.cancel)
        most = connections_for(files, len(bound))
        async with assemble(settings, certificate=certificate, connections=most) as listener:
            apps = [listener.app, *([listener.receiver_app] if listener.receiver_app else [])]
            tls = None if certificate is None else certificate.context
            servers = [
                Server(app, limits=limits_for(files, len(bound)), timeout_graceful_shutdown=DRAIN_SECONDS, tls=tls)
                for app in apps
            ]

            def end() -> None:
                listener.drain()
                for server in servers:
                    server.should_exit = True

            on_signal(end)
            scheme = "https" if settings.tls_certfile else "http"
            announce(settings, listener.new_tokens, [url_of(each, scheme=scheme) for each in bound])
            async with _http() as http, anyio.create_task_group() as tasks:
                systems = {name: _client(http, each, attempts=1) for name, each in settings.instances.items()}
                faults = listener.election.faults
                tasks.start_soon(supervise, "the report", partial(report, settings, systems, listener.store), faults)
                tasks.start_soon(supervise, "secrets", partial(listener.secrets.follow, reload), faults)
                async with anyio.create_task_group() as serving:
                    for server, where in zip(servers, bound, strict=True):
                        serving.start_soon(server.serve, [where])
                tasks.cancel_scope.cancel()
    logger.info("stopped")


async def _tokens(store: EventStore, name: str, given: tuple[SecretStr, ...], new: dict[str, str]) -> Tokens:
    if given:
        return Tokens(digests_of(given))
    # Made once and shown once; what is kept is a digest. Of several listeners that start together one makes it.
    key, holder = f"{name}_token", new_token()
    while (digest := await store.recall(key)) is None:
        lease = await store.acquire(key, holder, _TOKEN_SECONDS)
        if lease is None:
            await anyio.sleep(_TOKEN_SECONDS / 100)
        elif await store.recall(key) is None:
            token = new_token()
            with contextlib.suppress(LeaseLost):
                await store.remember(key, digest_of(token), lease=lease)
                new[name] = token
    return Tokens([digest])


def _http(**options: Any) -> httpx.AsyncClient:
    return async_client(follow_redirects=False, cookies=no_cookies(), **options)


def _client(http: httpx.AsyncClient, instance: InstanceSettings, **options: Any) -> AirbyteClient:
    return AirbyteClient(
        http,
        instance.airbyte_url,
        credentials=credentials_of(instance),
        token_url=instance.token_url,
        workspace_ids=instance.workspace_ids,
        **options,
    )


def _bind(host: str, port: int) -> socket.socket:
    try:
        return bind(host, port)
    except OSError as exc:
        raise SettingsError(
            f"can't listen on {host} port {port}: {exc.strerror}; set AIRBYTE_EVENTS_HOST and AIRBYTE_EVENTS_PORT,"
            " for example AIRBYTE_EVENTS_PORT=8485"
        ) from exc

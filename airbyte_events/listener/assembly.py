"""Assemble a listener from its settings: store, bus, one pipeline per instance, leader election, HTTP application.

The path of a webhook: the receiver stores the notification and responds 202; the inbox worker of the leading listener
has the monitor confirm it; the monitor appends the event to the log; the bus wakes the feed, which sends it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import httpx
from pydantic import SecretStr
from starlette.types import ASGIApp
from structlog.contextvars import bound_contextvars

from airbyte_events._utils.http import no_cookies
from airbyte_events._utils.proxies import async_client
from airbyte_events._utils.supervision import supervise
from airbyte_events._utils.tracing import record
from airbyte_events.bus.bus import EventBus
from airbyte_events.errors import CursorExpired, LeaseLost, StoreError
from airbyte_events.events import Cursor, JobEvent
from airbyte_events.listener.forwarding.forwarder import Forwarder
from airbyte_events.listener.forwarding.targets import DeliveryTarget, Targets, refuse_loops
from airbyte_events.listener.histories import Histories
from airbyte_events.listener.http.api import API
from airbyte_events.listener.http.app import create_app, requests_for, streams_of
from airbyte_events.listener.http.feed import Feed
from airbyte_events.listener.http.metrics import FRESH_SECONDS, Metrics, MetricsPage
from airbyte_events.listener.http.probes import Probes
from airbyte_events.listener.http.receiver import Receiver
from airbyte_events.listener.http.status import Status
from airbyte_events.listener.http.viewers import Viewers
from airbyte_events.listener.leader import LeaderElection, LeaderTask
from airbyte_events.listener.logging import log_event
from airbyte_events.listener.notify.announcer import Announcer
from airbyte_events.listener.notify.targets import notify_targets, refuse_own
from airbyte_events.listener.pipeline import Pipeline
from airbyte_events.listener.secrets import Secrets, airbyte_client, digests_of
from airbyte_events.listener.settings import Settings
from airbyte_events.listener.signals import Signals
from airbyte_events.monitor.poller import Ticks
from airbyte_events.store.base import EventStore
from airbyte_events.store.health import StoreHealth
from airbyte_events.store.records import Lease
from airbyte_events.store.retention import Retention
from airbyte_events.web.auth import Tokens, digest_of, new_token
from airbyte_events.web.h11_protocol import MAX_CONNECTIONS
from airbyte_events.web.rate_limit import ClientAccess
from airbyte_events.web.security_headers import SecurityHeaders
from airbyte_events.web.sessions import Operators, Sessions
from airbyte_events.web.tls import Certificate

logger = logging.getLogger(__name__)

_TOKEN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A running listener without its server.

    :param app: the HTTP application, with the receiver unless that is separate.
    :param receiver_app: the webhook receiver, if it has its own address.
    :param bus: closing it ends all streams.
    :param new_tokens: the tokens generated at this start, by purpose: ``webhook``, ``api``.
    """

    app: ASGIApp
    receiver_app: ASGIApp | None
    store: EventStore
    bus: EventBus
    election: LeaderElection
    new_tokens: dict[str, str]
    sessions: Sessions
    secrets: Secrets

    def drain(self) -> None:
        """End all streams and release all leases."""
        self.bus.close()
        self.election.stop()


@contextlib.asynccontextmanager
async def assemble(
    settings: Settings,
    *,
    store: EventStore | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    certificate: Certificate | None = None,
    connections: int = MAX_CONNECTIONS,
    metrics_fresh: float = FRESH_SECONDS,
) -> AsyncIterator[Listener]:
    """Run everything but the server: ``async with assemble(settings) as listener``.

    :param store: replaces the one that the settings name.
    :param transport: carries requests to Airbyte; sockets unless given.
    :param connections: the largest number of connections of the server.
    :param metrics_fresh: seconds for which a page of metrics is reused.
    :raises StoreError: if the store can't be opened.
    :raises SettingsError: if a target is this listener.
    """
    async with (
        settings.store.store() if store is None else store as store,
        EventBus(store) as bus,
        contextlib.AsyncExitStack() as stack,
    ):
        metrics = Metrics(settings.instances, connections=settings.metrics_connections)
        options: dict[str, Any] = {"transport": transport, "verify": httpx.create_ssl_context()}
        clients = {
            name: airbyte_client(
                await stack.enter_async_context(http_client(**options)), instance, on_request=metrics.requests(name)
            )
            for name, instance in settings.instances.items()
        }
        new_tokens: dict[str, str] = {}
        webhook_tokens = await _tokens(store, "webhook", settings.webhook_tokens, new_tokens)
        operator_tokens = Tokens(digests_of(settings.operator_tokens))
        api_tokens = await _tokens(store, "api", settings.api_tokens, new_tokens, including=operator_tokens)
        metrics_tokens = Tokens(digests_of(settings.metrics_tokens)) if settings.metrics_tokens else None
        targets = {
            name: Targets(url.get_secret_value() for url in instance.forward_urls)
            for name, instance in settings.instances.items()
        }
        notify = {name: notify_targets(settings.notify, name, client) for name, client in clients.items()}
        deliver_to: dict[str, dict[str, DeliveryTarget]] = {
            name: {**targets[name], **notify[name]} for name in settings.instances
        }
        refuse_loops(deliver_to, webhook_tokens.accepts)
        refuse_own(settings, notify_targets(settings.notify).values())
        pipelines = {name: Pipeline(name, client, store, _ticks(settings)) for name, client in clients.items()}
        announcers = {
            name: Announcer(name, notify[name], client.url, bus, store, client) for name, client in clients.items()
        }
        forwarders = {
            name: Forwarder(
                name, each, store, on_attempt=metrics.attempts(name, each), on_dead=metrics.dead_letters(name, each)
            )
            for name, each in deliver_to.items()
        }
        histories = Histories(store)
        signals = {
            name: Signals(name, pipelines[name].progress.read, store, histories, instance.connections)
            for name, instance in settings.instances.items()
        }
        election = _election(settings, store, pipelines, announcers, forwarders, signals)
        health = StoreHealth(store)
        access = ClientAccess(proxies=settings.trusted_proxies, allowed=settings.webhook_allow)
        probes = Probes()
        receiver = metrics.measured(
            Receiver(
                store,
                pipelines,
                webhook_tokens,
                access,
                targets,
                health.check_soon,
                metrics.commits.observe,
                probes=probes,
            )
        )
        most_requests = requests_for(connections)
        urls = {name: client.url for name, client in clients.items()}
        sessions = Sessions(api_tokens)
        feed = Feed(bus, store, urls, most_streams=streams_of(most_requests))
        viewers = Viewers(store, pipelines.values())
        faults = partial(_faults, bus, health, election)
        listener = Listener(
            app=create_app(
                API(
                    feed,
                    pipelines,
                    deliver_to,
                    histories.usual,
                    probes,
                    operators=Operators(operator_tokens, settings.trusted_proxies),
                    received=metrics.received,
                ),
                Status(store, bus, pipelines, election, faults, metrics.webhook_responses),
                MetricsPage(metrics, store, feed, pipelines, election, faults, signals, metrics_fresh),
                None if settings.webhook_apart else receiver,
                api_tokens,
                faults,
                access,
                hopeless=lambda: health.needs_restart,
                metrics_tokens=metrics_tokens,
                most_requests=most_requests,
                sessions=sessions,
                viewers=viewers,
            ),
            receiver_app=SecurityHeaders(receiver) if settings.webhook_apart else None,
            store=store,
            bus=bus,
            election=election,
            new_tokens=new_tokens,
            sessions=sessions,
            secrets=Secrets(
                webhook_tokens=webhook_tokens,
                api_tokens=api_tokens,
                metrics_tokens=metrics_tokens,
                operator_tokens=operator_tokens,
                authenticate={name: client.authenticate for name, client in clients.items()},
                certificate=certificate,
            ),
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervise, "store health", health.run, election.faults)
            tasks.start_soon(supervise, "leader election", election.run, election.faults)
            # The listener is ready without them: a store that can't be read is a fault of its own.
            tasks.start_soon(supervise, "job histories", histories.load, {})
            tasks.start_soon(supervise, "viewers", viewers.run, election.faults)
            observe = partial(_observe_events, bus, metrics, pipelines, histories)
            tasks.start_soon(supervise, "event metrics", observe, election.faults)
            yield listener
            tasks.cancel_scope.cancel()


def http_client(**options: Any) -> httpx.AsyncClient:
    """Return a client that follows no redirect and keeps no cookie."""
    return async_client(follow_redirects=False, cookies=no_cookies(), **options)


async def _tokens(
    store: EventStore,
    purpose: str,
    configured: tuple[SecretStr, ...],
    new_tokens: dict[str, str],
    *,
    including: Tokens | None = None,
) -> Tokens:
    if configured:
        return Tokens(digests_of(configured), including=including)
    # Generated and shown once; the store keeps a digest. Of several listeners that start together, one generates it.
    key, holder = f"{purpose}_token", new_token()
    while (digest := await store.recall(key)) is None:
        lease = await store.acquire(key, holder, _TOKEN_SECONDS)
        if lease is None:
            await anyio.sleep(_TOKEN_SECONDS / 100)
        elif await store.recall(key) is None:
            token = new_token()
            with contextlib.suppress(LeaseLost):
                await store.remember(key, digest_of(token), lease=lease)
                new_tokens[purpose] = token
    return Tokens([digest], including=including)


def _ticks(settings: Settings) -> Ticks:
    return Ticks(
        unproven=settings.poll_interval,
        proven=max(settings.poll_interval, settings.poll_interval_proven),
        viewed=max(settings.poll_interval, settings.poll_interval_viewed),
        idle=max(settings.poll_interval, settings.poll_interval_idle),
    )


def _election(
    settings: Settings,
    store: EventStore,
    pipelines: Mapping[str, Pipeline],
    announcers: Mapping[str, Announcer],
    forwarders: Mapping[str, Forwarder],
    signals: Mapping[str, Signals],
) -> LeaderElection:
    tasks: dict[str, LeaderTask] = {
        f"sources/{name}": partial(_lead, pipeline, announcers[name], forwarders[name], signals[name])
        for name, pipeline in pipelines.items()
    }
    retention = Retention(store, age=timedelta(days=settings.retain_days), events=settings.retain_events)
    return LeaderElection(
        store,
        {**tasks, "retention": retention.run},
        health={f"sources/{name}": pipeline for name, pipeline in pipelines.items()},
    )


async def _lead(pipeline: Pipeline, announcer: Announcer, forwarder: Forwarder, signals: Signals, lease: Lease) -> None:
    with bound_contextvars(instance=pipeline.instance):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forwarder.run)
            tasks.start_soon(announcer.run, lease)
            tasks.start_soon(supervise, "signals", partial(signals.run, lease), {})
            await pipeline.run(lease)
            tasks.cancel_scope.cancel()


def _faults(bus: EventBus, health: StoreHealth, election: LeaderElection) -> dict[str, str]:
    """Return why the listener is not ready, by part."""
    faults = {}
    if bus.closed:
        faults["listener"] = "is shutting down"
    if not bus.healthy:
        faults["store"] = "can't be read"
    elif not health.writable:
        faults["store"] = "can't be written"
    return faults | election.faults


async def _observe_events(
    bus: EventBus, metrics: Metrics, pipelines: Mapping[str, Pipeline], histories: Histories
) -> None:
    """Count and log each new event until cancelled or the bus closes.

    What an unreadable store interrupts continues where it was. The log may have been cut or replaced by then: only then
    are events left out, and the histories are read again.
    """
    after: Cursor | None = None
    outdated = False
    while not bus.closed:
        try:
            with bus.subscribe(after=after, own=True) as events:
                try:
                    if outdated:
                        await histories.load()
                        outdated = False
                    async for event in events:
                        _observe(event, metrics, pipelines, histories)
                finally:
                    after = events.cursor
        except CursorExpired:
            after, outdated = None, True
        except StoreError as exc:
            logger.debug("new events can't be counted and logged yet: error=%s", exc)
        await anyio.sleep(0 if bus.closed else 1)


def _observe(event: JobEvent, metrics: Metrics, pipelines: Mapping[str, Pipeline], histories: Histories) -> None:
    metrics.count(event)
    histories.add(event)
    pipeline = pipelines.get(event.ref.instance)
    leads = pipeline is not None and pipeline.monitor is not None
    log_event(event, found_here=leads)
    if leads:
        since = event.finished_at or event.observed_at
        record("event", event.ref, since, status=event.status.value, origin=event.origin.value)

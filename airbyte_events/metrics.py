"""What a listener does, in numbers for Prometheus: ``GET /metrics``.

Names follow https://prometheus.io/docs/practices/naming/. Which instance it is about is told by the label ``airbyte``:
``instance`` is Prometheus's own, for whom it has asked. No label holds a token, a path with one, or an id of a job or
connection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import httpx
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airbyte_events import __version__
from airbyte_events.duties import Duties
from airbyte_events.events import PUSHED_JOB_TYPES, JobEvent, JobStatus, Origin, utcnow
from airbyte_events.feed import Feed
from airbyte_events.sources import Sources
from airbyte_events.store import EventStore, StoreStats

_ANSWERS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
_LAGS = (0.5, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 3600)


class Metrics:
    """The numbers of one listener that are counted as things happen; the others are read when somebody asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._webhooks = Counter(
            "airbyte_events_webhook_requests",
            "Requests to the webhook receiver, by the answer: 202 taken, 200 taken and nothing to confirm.",
            ["airbyte", "status"],
            registry=self.registry,
        )
        self._answers = Histogram(
            "airbyte_events_webhook_answer_seconds",
            "From a webhook's request to the answer.",
            buckets=_ANSWERS,
            registry=self.registry,
        )
        self.commits = Histogram(
            "airbyte_events_notification_commit_seconds",
            "How long a notification took to be durable.",
            buckets=_ANSWERS,
            registry=self.registry,
        )
        self._requests = Counter(
            "airbyte_events_airbyte_requests",
            "Requests to Airbyte's API; those that are no responses as well got no answer.",
            ["airbyte", "route"],
            registry=self.registry,
        )
        self._responses = Counter(
            "airbyte_events_airbyte_responses",
            "Its answers.",
            ["airbyte", "route", "status"],
            registry=self.registry,
        )
        self._events = Counter(
            "airbyte_events_job_events",
            "Events that entered the log, whichever listener found them.",
            ["airbyte", "status", "origin"],
            registry=self.registry,
        )
        self._lags = Histogram(
            "airbyte_events_detection_lag_seconds",
            "From a job's end to the listener's knowledge of it. Webhooks tell ends in whole seconds.",
            ["airbyte", "origin"],
            buckets=_LAGS,
            registry=self.registry,
        )
        self._missed = Counter(
            "airbyte_events_missed_webhooks",
            "Syncs that succeeded or failed, and that a look found first.",
            ["airbyte"],
            registry=self.registry,
        )

    def take(self, event: JobEvent) -> None:
        """Count an event that has entered the log."""
        instance = event.ref.instance
        self._events.labels(instance, event.status.value, event.origin.value).inc()
        if event.terminal and event.finished_at is not None:
            lag = (event.observed_at - event.finished_at).total_seconds()
            self._lags.labels(instance, event.origin.value).observe(max(0.0, lag))
        announceable = event.job_type in PUSHED_JOB_TYPES and event.status in (JobStatus.SUCCEEDED, JobStatus.FAILED)
        if announceable and event.origin is Origin.POLL:
            self._missed.labels(instance).inc()

    def measured(self, receiver: ASGIApp) -> ASGIApp:
        """The webhook receiver, its answers counted."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            began = time.perf_counter()

            async def send_counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    # Whoever is refused may name whatever they like.
                    instance = "" if status in (404, 429) else scope["path"].split("/")[-2]
                    self._webhooks.labels(instance, status).inc()
                    self._answers.observe(time.perf_counter() - began)
                await send(message)

            await receiver(scope, receive, send_counted)

        return app

    def hooks(self, instance: str) -> dict[str, list[Callable[..., Any]]]:
        """``event_hooks`` of the client that an instance is asked by."""

        async def asked(request: httpx.Request) -> None:
            self._requests.labels(instance, route_of(request)).inc()

        async def answered(response: httpx.Response) -> None:
            self._responses.labels(instance, route_of(response.request), response.status_code).inc()

        return {"request": [asked], "response": [answered]}


def route_of(request: httpx.Request) -> str:
    """What is asked for, without what tells one thing from another: ``GET jobs/{id}``."""
    known = re.search(r"/(applications/token|[a-z]+)(/[^/]+)?$", request.url.path)
    if known is None:
        return "other"
    return f"{request.method} {known[1]}" + ("/{id}" if known[2] else "")


class _Now(Collector):
    """What is so at this moment."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class MetricsPage:
    """``GET /metrics``."""

    def __init__(
        self,
        metrics: Metrics,
        store: EventStore,
        feed: Feed,
        sources: Mapping[str, Sources],
        duties: Duties,
    ) -> None:
        self._metrics = metrics
        self._store = store
        self._feed = feed
        self._sources = sources
        self._duties = duties

    @property
    def route(self) -> Route:
        return Route("/metrics", self.tell)

    async def tell(self, request: Request) -> Response:
        """All numbers, as Prometheus reads them."""
        watched = {name: len(await self._store.watched(name)) for name in self._sources}
        now = CollectorRegistry()
        now.register(
            _Now(
                [
                    *_store(await self._store.stats()),
                    *await self._queues(),
                    *self._listener(),
                    *self._instances(watched),
                ]
            )
        )
        body = generate_latest(self._metrics.registry) + generate_latest(now)
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    async def _queues(self) -> Iterable[Metric]:
        """How long the next in line of each queue has waited, 0 where nobody does."""
        confirmed = GaugeMetricFamily(
            "airbyte_events_notifications_oldest_pending_seconds",
            "Since when the oldest notification waits to be confirmed.",
            labels=["airbyte"],
        )
        forwarded = GaugeMetricFamily(
            "airbyte_events_deliveries_overdue_seconds",
            "Since when a notification could be forwarded that has not been.",
            labels=["airbyte"],
        )
        for name in self._sources:
            pending = await self._store.pending(name, limit=1)
            confirmed.add_metric([name], _age(pending[0].received_at if pending else None))
            forwarded.add_metric([name], _age(await self._store.next_due(name)))
        return confirmed, forwarded

    def _listener(self) -> Iterable[Metric]:
        bus = self._feed.bus
        info = GaugeMetricFamily("airbyte_events_info", "The version, as a label.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield _gauge(
            "airbyte_events_subscriptions",
            "Who follows events: streams, pages that wait, and the listener itself.",
            bus.subscriptions,
        )
        yield _gauge(
            "airbyte_events_subscription_lag_events", "How far the slowest of them is behind the log's head.", bus.lag
        )
        yield CounterMetricFamily(
            "airbyte_events_feed_resets", "Readers that were told to read the states again.", value=self._feed.resets
        )
        held = GaugeMetricFamily(
            "airbyte_events_lease_held", "Whether this listener does it for all that share the store.", labels=["lease"]
        )
        for name in (*(f"sources/{name}" for name in self._sources), "retention"):
            held.add_metric([name], name in self._duties.held)
        yield held

    def _instances(self, watched: Mapping[str, int]) -> Iterable[Metric]:
        names = ["airbyte"]
        gauges = {
            "airbyte_events_watched_jobs": "Jobs that somebody waits for, at whichever listener.",
            "airbyte_events_push_proven": "Whether webhooks came before looks of late; where the lease is held.",
            "airbyte_events_failed_looks": "Looks in a row that got no answer; where the lease is held.",
            "airbyte_events_backoff_seconds": "Until Airbyte may be asked again.",
        }
        counters = {
            "looks": "Looks at all that has changed.",
            "reads": "Jobs that were read one by one.",
            "contradictions": "Jobs that were told to have ended otherwise than they had.",
            "cut": "Looks that did not take in all that had changed.",
        }
        families = {name: GaugeMetricFamily(name, text, labels=names) for name, text in gauges.items()}
        counted = {
            name: CounterMetricFamily(f"airbyte_events_{name}", text, labels=names) for name, text in counters.items()
        }
        settled = CounterMetricFamily(
            "airbyte_events_confirmations",
            "Notifications that were settled, by outcome.",
            labels=["airbyte", "outcome"],
        )
        for name, each in self._sources.items():
            families["airbyte_events_watched_jobs"].add_metric([name], watched[name])
            families["airbyte_events_backoff_seconds"].add_metric([name], each.airbyte.backing_off)
            if each.monitor is not None:
                families["airbyte_events_push_proven"].add_metric([name], each.monitor.push_proven)
            if each.poller is not None:
                families["airbyte_events_failed_looks"].add_metric([name], each.poller.failures)
            for counter in counters:
                counted[counter].add_metric([name], getattr(each.counters, counter))
            for outcome, count in each.counters.settled.items():
                settled.add_metric([name, outcome], count)
        return [*families.values(), *counted.values(), settled]


def _store(stats: StoreStats) -> Iterable[Metric]:
    meanings = {
        "head": ("airbyte_events_store_head_sequence", "The newest event's sequence."),
        "first": ("airbyte_events_store_first_sequence", "The oldest event's that is kept."),
        "events": ("airbyte_events_store_events", "Events that are kept."),
        "jobs": ("airbyte_events_store_jobs", "Jobs of which the state is known."),
        "notifications": ("airbyte_events_store_notifications", "Notifications that are kept."),
        "pending": ("airbyte_events_notifications_pending", "Notifications that wait to be confirmed."),
        "due": ("airbyte_events_deliveries_due", "Notifications that wait to be forwarded."),
        "dead": ("airbyte_events_deliveries_dead", "Deliveries that were given up."),
        "bytes": ("airbyte_events_store_size_bytes", "The store's size."),
    }
    return [_gauge(name, text, getattr(stats, field)) for field, (name, text) in meanings.items()]


def _age(moment: datetime | None) -> float:
    return 0.0 if moment is None else max(0.0, (utcnow() - moment).total_seconds())


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)

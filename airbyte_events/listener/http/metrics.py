"""Metrics of the listener for Prometheus: ``GET /metrics``.

Names follow https://prometheus.io/docs/practices/naming/. The label ``airbyte`` is the Airbyte instance, as
``instance`` is Prometheus's own. No label contains a token, a path with one, or a job id; those of connections need
``METRICS_CONNECTIONS``.
"""

from __future__ import annotations

import collections
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import anyio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airbyte_events import __version__
from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte.transport import Observer
from airbyte_events.errors import StoreError
from airbyte_events.events import JobEvent, JobStatus, Origin, SignalKind, TaskReceipt
from airbyte_events.listener.http.feed import Feed
from airbyte_events.listener.http.freshness import Freshness
from airbyte_events.listener.leader import LeaderElection
from airbyte_events.listener.pipeline import Pipeline
from airbyte_events.listener.signals import Signals
from airbyte_events.store.base import Maintenance
from airbyte_events.store.records import DeliveryState, Outcome, StoreStats

_NAMESPACE = "airbyte_events"
_RESPONSE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
_RECEIPT_BUCKETS = (*_RESPONSE_BUCKETS[1:], 10, 30, 60, 300)
_LAG_BUCKETS = (0.5, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 3600)

STORE_SECONDS = 2.0
"""Metrics of a store that does not respond in this time are left out; the others are needed all the more."""

FRESH_SECONDS = 2.0
"""A page is reused for this time, as everybody may request it at any rate."""

_STATUSES = (200, 202, 400, 413, 503)
_REFUSED = (404, 429)
_SETTLED = (Outcome.CONFIRMED, Outcome.UNCONFIRMED, Outcome.UNKNOWN_JOB)


class Metrics:
    """The counters and histograms of a listener. Gauges are read when the page is made.

    :param instances: their names. Series of alerts start at 0: Prometheus sees no increase if they start at 1.
    :param connections: the maximum of Airbyte connections with a series of their own.
    """

    def __init__(self, instances: Iterable[str], *, connections: int = 0) -> None:
        self.freshness = Freshness(connections)
        self.webhook_responses: collections.Counter[str] = collections.Counter()
        """The number of webhooks answered, by HTTP status."""
        self._registry = CollectorRegistry()
        counter = partial(Counter, namespace=_NAMESPACE, registry=self._registry)
        histogram = partial(Histogram, namespace=_NAMESPACE, registry=self._registry)
        self._webhooks = counter(
            "webhook_requests",
            "Requests to the webhook receiver, by response: 202 stored, 200 stored with nothing to confirm.",
            ["airbyte", "status"],
        )
        self._responses = histogram(
            "webhook_answer_seconds", "Time from a webhook request to its response.", buckets=_RESPONSE_BUCKETS
        )
        self.commits = histogram(
            "notification_commit_seconds", "Time to store a notification durably.", buckets=_RESPONSE_BUCKETS
        )
        self._requests = counter(
            "airbyte_requests",
            "Requests to Airbyte's API, by response status; none if there was no response.",
            ["airbyte", "route", "status"],
        )
        self._events = counter(
            "job_events", "Events appended to the event log by any listener.", ["airbyte", "status", "origin"]
        )
        self._lags = histogram(
            "detection_lag_seconds",
            "Time from a job's completion to its detection. Webhooks report completions in whole seconds.",
            ["airbyte", "origin"],
            buckets=_LAG_BUCKETS,
        )
        self._receipts = histogram(
            "receipt_lag_seconds",
            "Time from the detection of a completion to its receipt by a task that was waiting, as tasks report it.",
            ["airbyte"],
            buckets=_RECEIPT_BUCKETS,
        )
        self._attempts = counter(
            "delivery_attempts",
            "Requests that deliver notifications, by target and result; due: they are retried.",
            ["airbyte", "target", "result"],
        )
        self._dead_letters = counter(
            "dead_letters", "Deliveries given up by this listener, by target.", ["airbyte", "target"]
        )
        for status in _REFUSED:
            self._webhooks.labels("", status)
        for name in instances:
            for status in _STATUSES:
                self._webhooks.labels(name, status)
            self._receipts.labels(name)
            for origin in Origin:
                self._lags.labels(name, origin.value)
                for state in filter(lambda each: each.terminal, JobStatus):
                    self._events.labels(name, state.value, origin.value)

    def count(self, event: JobEvent) -> None:
        instance = event.ref.instance
        self.freshness.add(event)
        self._events.labels(instance, event.status.value, event.origin.value).inc()
        if event.terminal and event.finished_at is not None:
            lag = (event.observed_at - event.finished_at).total_seconds()
            self._lags.labels(instance, event.origin.value).observe(max(0.0, lag))

    def received(self, state: JobEvent, receipt: TaskReceipt) -> None:
        """Count a task's receipt of a completion, unless it began to wait after that."""
        if receipt.waiting_since <= state.observed_at:
            lag = (receipt.received_at - state.observed_at).total_seconds()
            self._receipts.labels(state.ref.instance).observe(max(0.0, lag))

    def measured(self, receiver: ASGIApp) -> ASGIApp:
        """Return the webhook receiver with its responses counted."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            began = time.perf_counter()

            async def send_counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    # A refused request can name any instance.
                    instance = "" if status in _REFUSED else scope["path"].split("/")[-2]
                    self._webhooks.labels(instance, status).inc()
                    self.webhook_responses[str(status)] += 1
                    self._responses.observe(time.perf_counter() - began)
                await send(message)

            await receiver(scope, receive, send_counted)

        return app

    def requests(self, instance: str) -> Observer:
        """Return the function that counts the requests of an instance's client."""
        return lambda route, status: self._requests.labels(instance, route, status or "none").inc()

    def attempts(self, instance: str, targets: Iterable[str]) -> Callable[[str, DeliveryState], None]:
        """Return the function that counts the requests to an instance's targets."""
        for target in targets:
            for state in DeliveryState:
                self._attempts.labels(instance, target, state.value)
        return lambda target, state: self._attempts.labels(instance, target, state.value).inc()

    def dead_letters(self, instance: str, targets: Iterable[str]) -> Callable[[str, int], None]:
        """Return the function that counts the deliveries to an instance's targets that were given up."""
        for target in targets:
            self._dead_letters.labels(instance, target)
        return lambda target, count: self._dead_letters.labels(instance, target).inc(count)

    def families(self) -> Iterable[Metric]:
        """Return all counters and histograms, without the ``_created`` series that would double their number."""
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class _Families(Collector):
    """The metric families of one page."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


@dataclass(eq=False)
class MetricsPage:
    """``GET /metrics``. One page is made at a time and reused for a moment.

    :param fresh: seconds for which a page is reused.
    """

    metrics: Metrics
    store: Maintenance
    feed: Feed
    pipelines: Mapping[str, Pipeline]
    election: LeaderElection
    faults: Callable[[], dict[str, str]]
    signals: Mapping[str, Signals]
    fresh: float = FRESH_SECONDS
    _content: bytes = field(default=b"", init=False)
    _fresh_until: float = field(default=-math.inf, init=False)
    _lock: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    async def page(self, request: Request) -> Response:
        """Return all metrics, at most ``fresh`` seconds old."""
        async with self._lock:
            if anyio.current_time() >= self._fresh_until:
                self._content = await self._make()
                self._fresh_until = anyio.current_time() + self.fresh
        return Response(self._content, media_type=CONTENT_TYPE_LATEST)

    async def _make(self) -> bytes:
        stored: list[Metric] = []
        with contextlib.suppress(StoreError), anyio.move_on_after(STORE_SECONDS):
            stored = [*_store(await self.store.stats()), *await self._queues()]
            await self.metrics.freshness.load(self.feed.store)
        unreadable = _gauge(
            "store_unreadable_rows",
            "Damaged rows of the store that were skipped since the listener started, by table.",
            "table",
        )
        for table in ("events", "jobs", "notifications", "deliveries"):
            unreadable.add_metric([table], self.store.unreadable.get(table, 0))
        return generate_latest(
            _Families(
                [
                    *self.metrics.families(),
                    *self._listener(),
                    *self._instances(),
                    *self._signals(),
                    *_fresh(self.metrics.freshness),
                    unreadable,
                    *stored,
                ]
            )
        )

    async def _queues(self) -> Iterable[Metric]:
        """Return the age of the oldest entry of each queue, 0 if it is empty, and the number of watched jobs."""
        watched = _gauge("watched_jobs", "Jobs watched by any listener.", "airbyte")
        confirmed = _gauge(
            "notifications_oldest_pending_seconds",
            "Age of the oldest notification that is not confirmed yet.",
            "airbyte",
        )
        forwarded = _gauge(
            "deliveries_overdue_seconds", "Time for which the oldest due delivery has not been sent.", "airbyte"
        )
        for name in self.pipelines:
            queues = await self.store.queues(name)
            watched.add_metric([name], queues.watched)
            confirmed.add_metric([name], _age(queues.pending_since))
            forwarded.add_metric([name], _age(queues.due_since))
        return watched, confirmed, forwarded

    def _listener(self) -> Iterable[Metric]:
        bus = self.feed.bus
        info = _gauge("info", "The version, as a label.", "version")
        info.add_metric([__version__], 1)
        yield info
        ready = "Whether webhooks can be stored and events read; while 0, metrics of the store are missing."
        yield _gauge("ready", ready, value=not self.faults())
        yield _gauge("subscriptions", "Open subscriptions: streams and waiting long polls.", value=bus.subscriptions)
        yield _gauge("subscription_lag_events", "Events that the slowest subscription is behind.", value=bus.lag)
        yield _counter("feed_resets", "Resets sent: the reader must read all states.", value=self.feed.resets)
        held = _gauge("lease_held", "Whether this listener holds the lease.", "lease")
        for name in (*(f"sources/{name}" for name in self.pipelines), "retention"):
            held.add_metric([name], name in self.election.held)
        yield held

    def _instances(self) -> Iterable[Metric]:
        backoff = _gauge("backoff_seconds", "Time until the next request to Airbyte after errors.", "airbyte")
        proven = _gauge(
            "push_proven", "Whether webhooks reported the last completions before polls; on the leader.", "airbyte"
        )
        failed = _gauge("failed_looks", "Failed polls in a row; on the leader.", "airbyte")
        settled = _counter("confirmations", "Notifications settled, by outcome.", "airbyte", "outcome")
        meanings = {
            "lists": ("looks", "Polls: lists of changed jobs."),
            "cut": ("cut_looks", "Polls that did not read all changed jobs."),
            "reads": ("reads", "Jobs read one by one."),
            "contradictions": ("contradictions", "Jobs reported with another result after their completion."),
            "reused": ("reused_job_numbers", "Jobs with the id of an earlier job: Airbyte was restored."),
            "announced": ("announced_syncs", "Syncs whose success or failure a webhook reported first."),
            "missed": ("missed_webhooks", "Syncs that succeeded or failed and that a poll detected first."),
        }
        counted = {counter: _counter(name, text, "airbyte") for counter, (name, text) in meanings.items()}
        for name, each in self.pipelines.items():
            backoff.add_metric([name], each.airbyte.backing_off)
            if each.monitor is not None:
                proven.add_metric([name], each.monitor.push_proven)
            if each.poller is not None:
                failed.add_metric([name], each.poller.failures)
            for counter, family in counted.items():
                family.add_metric([name], getattr(each.counters, counter))
            for outcome in _SETTLED:
                settled.add_metric([name, outcome.value], each.counters.settled.get(outcome.value, 0))
        return [backoff, proven, failed, *counted.values(), settled]

    def _signals(self) -> Iterable[Metric]:
        raised = _gauge("signals", "Raised signals, by kind; on the leader.", "airbyte", "signal")
        counted = _counter("signals_raised", "Signals raised by this listener, by kind.", "airbyte", "signal")
        for name, each in self.signals.items():
            now = [event.signal.kind for event in each.raised.values() if event.signal is not None]
            for kind in SignalKind:
                if name in self.pipelines and self.pipelines[name].monitor is not None:
                    raised.add_metric([name, kind.value], now.count(kind))
                counted.add_metric([name, kind.value], each.counts[kind])
        return [raised, counted]


def _store(stats: StoreStats) -> Iterable[Metric]:
    meanings = {
        "head": ("store_head_sequence", "Sequence number of the newest event."),
        "first": ("store_first_sequence", "Sequence number of the oldest event."),
        "events": ("store_events", "Events in the event log."),
        "jobs": ("store_jobs", "Jobs with a known state."),
        "notifications": ("store_notifications", "Notifications in the inbox."),
        "pending": ("notifications_pending", "Notifications that are not confirmed yet."),
        "due": ("deliveries_due", "Deliveries waiting to be sent."),
        "dead": ("deliveries_dead", "Deliveries given up."),
        "bytes": ("store_size_bytes", "Size of the store."),
    }
    return [_gauge(name, text, value=getattr(stats, field)) for field, (name, text) in meanings.items()]


def _fresh(freshness: Freshness) -> Iterable[Metric]:
    success = _gauge(
        "connection_last_success_timestamp_seconds",
        "When a job of the connection that loads data last succeeded, for METRICS_CONNECTIONS connections at most.",
        *("airbyte", "connection", "name"),
    )
    for (instance, connection_id), each in freshness.successes.items():
        success.add_metric([instance, connection_id, each.name], each.at.timestamp())
    hidden = "Connections without a series: METRICS_CONNECTIONS others have one."
    return [success, _gauge("connections_without_series", hidden, value=freshness.hidden)]


def _age(moment: datetime | None) -> float:
    return 0.0 if moment is None else max(0.0, (utcnow() - moment).total_seconds())


def _gauge(name: str, text: str, *labels: str, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_NAMESPACE}_{name}", text, labels=labels or None, value=value)


def _counter(name: str, text: str, *labels: str, value: float | None = None) -> CounterMetricFamily:
    return CounterMetricFamily(f"{_NAMESPACE}_{name}", text, labels=labels or None, value=value)

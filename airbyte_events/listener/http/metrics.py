"""What a listener does, in numbers for Prometheus: ``GET /metrics``.

Names follow https://prometheus.io/docs/practices/naming/. Which instance it is about is told by the label ``airbyte``:
``instance`` is Prometheus's own, for whom it has asked. No label holds a token, a path with one, or an id of a job or
connection.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

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
from airbyte_events.events import JobEvent, JobStatus, Origin
from airbyte_events.listener.http.feed import Feed
from airbyte_events.listener.leader import LeaderElection
from airbyte_events.listener.pipeline import Pipeline
from airbyte_events.store.base import EventStore
from airbyte_events.store.records import Outcome, StoreStats

_ANSWERS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
_LAGS = (0.5, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 3600)

STORE_SECONDS = 2.0
"""What the store does not tell in time is left out: the rest, such as refused webhooks, is wanted all the more."""

FRESH_SECONDS = 2.0
"""A page is made for all who ask within so long, as anybody may, and as often as they like."""

_ANSWERED = (200, 202, 400, 413, 503)
_REFUSED = (404, 429)
_SETTLED = (Outcome.CONFIRMED, Outcome.UNCONFIRMED, Outcome.UNKNOWN_JOB)


class Metrics:
    """The numbers of one listener that are counted as things happen; the others are read when somebody asks.

    :param instances: by name. What alerts ask for is there from the start, at 0: of a series that begins at 1
        Prometheus sees no increase.
    """

    def __init__(self, instances: Iterable[str]) -> None:
        self._registry = CollectorRegistry()
        self._webhooks = Counter(
            "airbyte_events_webhook_requests",
            "Requests to the webhook receiver, by the answer: 202 taken, 200 taken and nothing to confirm.",
            ["airbyte", "status"],
            registry=self._registry,
        )
        self._answers = Histogram(
            "airbyte_events_webhook_answer_seconds",
            "From a webhook's request to the answer.",
            buckets=_ANSWERS,
            registry=self._registry,
        )
        self.commits = Histogram(
            "airbyte_events_notification_commit_seconds",
            "How long a notification took to be durable.",
            buckets=_ANSWERS,
            registry=self._registry,
        )
        self._requests = Counter(
            "airbyte_events_airbyte_requests",
            "Requests to Airbyte's API, by the answer's status, or none; POST /applications/token is for a new token.",
            ["airbyte", "route", "status"],
            registry=self._registry,
        )
        self._events = Counter(
            "airbyte_events_job_events",
            "Events that entered the log, whichever listener found them.",
            ["airbyte", "status", "origin"],
            registry=self._registry,
        )
        self._lags = Histogram(
            "airbyte_events_detection_lag_seconds",
            "From a job's end to the listener's knowledge of it. Webhooks tell ends in whole seconds.",
            ["airbyte", "origin"],
            buckets=_LAGS,
            registry=self._registry,
        )
        for status in _REFUSED:
            self._webhooks.labels("", status)
        for name in instances:
            for status in _ANSWERED:
                self._webhooks.labels(name, status)
            for origin in Origin:
                self._lags.labels(name, origin.value)
                for state in filter(lambda each: each.terminal, JobStatus):
                    self._events.labels(name, state.value, origin.value)

    def take(self, event: JobEvent) -> None:
        """Count an event that has entered the log."""
        instance = event.ref.instance
        self._events.labels(instance, event.status.value, event.origin.value).inc()
        if event.terminal and event.finished_at is not None:
            lag = (event.observed_at - event.finished_at).total_seconds()
            self._lags.labels(instance, event.origin.value).observe(max(0.0, lag))

    def measured(self, receiver: ASGIApp) -> ASGIApp:
        """The webhook receiver, its answers counted."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            began = time.perf_counter()

            async def send_counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    # Whoever is refused may name whatever they like.
                    instance = "" if status in _REFUSED else scope["path"].split("/")[-2]
                    self._webhooks.labels(instance, status).inc()
                    self._answers.observe(time.perf_counter() - began)
                await send(message)

            await receiver(scope, receive, send_counted)

        return app

    def webhook_answers(self) -> dict[str, int]:
        """How many webhooks were answered, by the HTTP status."""
        answers: dict[str, int] = {}
        for sample in next(iter(self._webhooks.collect())).samples:
            if sample.name.endswith("_total") and sample.value:
                status = sample.labels["status"]
                answers[status] = answers.get(status, 0) + int(sample.value)
        return answers

    def requests(self, instance: str) -> Observer:
        """What counts the requests of the client that an instance is asked by."""
        return lambda route, status: self._requests.labels(instance, route, status or "none").inc()

    def families(self) -> Iterable[Metric]:
        """All that was counted. When counting began is left out: it would be one more series for each."""
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class _Told(Collector):
    """What is told on one page."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class MetricsPage:
    """``GET /metrics``. One page is made at a time, and for :data:`FRESH_SECONDS`; whoever asks meanwhile waits for it.

    :param unready: what is not ready, by part.
    """

    def __init__(
        self,
        metrics: Metrics,
        store: EventStore,
        feed: Feed,
        pipelines: Mapping[str, Pipeline],
        election: LeaderElection,
        unready: Callable[[], dict[str, str]],
    ) -> None:
        self._metrics = metrics
        self._store = store
        self._feed = feed
        self._pipelines = pipelines
        self._election = election
        self._unready = unready
        self._page = b""
        self._fresh_until = float("-inf")
        self._making = anyio.Lock()

    async def tell(self, request: Request) -> Response:
        """Return all numbers, as Prometheus reads them, not older than :data:`FRESH_SECONDS`."""
        async with self._making:
            if anyio.current_time() >= self._fresh_until:
                self._page = await self._made()
                self._fresh_until = anyio.current_time() + FRESH_SECONDS
        return Response(self._page, media_type=CONTENT_TYPE_LATEST)

    async def _made(self) -> bytes:
        stored: list[Metric] = []
        with contextlib.suppress(StoreError), anyio.move_on_after(STORE_SECONDS):
            stored = [*_store(await self._store.stats()), *await self._queues()]
        unreadable = GaugeMetricFamily(
            "airbyte_events_store_unreadable_rows",
            "Rows of the store that can't be read and were left out since the listener started, by table.",
            labels=["table"],
        )
        for table in ("events", "jobs", "notifications", "deliveries"):
            unreadable.add_metric([table], self._store.unreadable.get(table, 0))
        return generate_latest(
            _Told([*self._metrics.families(), *self._listener(), *self._instances(), unreadable, *stored])
        )

    async def _queues(self) -> Iterable[Metric]:
        """How long the next in line of each queue has waited, 0 where nobody does, and how many jobs are waited for."""
        watched = _each("airbyte_events_watched_jobs", "Jobs that somebody waits for, at whichever listener.")
        confirmed = _each(
            "airbyte_events_notifications_oldest_pending_seconds",
            "Since when the oldest notification waits to be confirmed.",
        )
        forwarded = _each(
            "airbyte_events_deliveries_overdue_seconds",
            "Since when a notification could be forwarded that has not been.",
        )
        for name in self._pipelines:
            queues = await self._store.queues(name)
            watched.add_metric([name], queues.watched)
            confirmed.add_metric([name], _age(queues.pending_since))
            forwarded.add_metric([name], _age(queues.due_since))
        return watched, confirmed, forwarded

    def _listener(self) -> Iterable[Metric]:
        bus = self._feed.bus
        info = GaugeMetricFamily("airbyte_events_info", "The version, as a label.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield _gauge(
            "airbyte_events_ready",
            "Whether webhooks can be stored and events read; while not, what the store knows is missing here.",
            not self._unready(),
        )
        yield _gauge(
            "airbyte_events_subscriptions", "Who follows events: streams, and pages that wait.", bus.subscriptions
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
        for name in (*(f"sources/{name}" for name in self._pipelines), "retention"):
            held.add_metric([name], name in self._election.held)
        yield held

    def _instances(self) -> Iterable[Metric]:
        backoff = _each("airbyte_events_backoff_seconds", "Until Airbyte may be asked again.")
        proven = _each(
            "airbyte_events_push_proven", "Whether webhooks came before looks of late; where the lease is held."
        )
        failed = _each("airbyte_events_failed_looks", "Looks in a row that got no answer; where the lease is held.")
        meanings = {
            "looks": ("looks", "Looks at all that has changed."),
            "cut": ("cut_looks", "Those that did not take in all of it."),
            "reads": ("reads", "Jobs that were read one by one."),
            "contradictions": ("contradictions", "Jobs that were told to have ended otherwise than they had."),
            "reused": ("reused_job_numbers", "Jobs whose number another job had before: Airbyte's was restored."),
            "announced": ("announced_syncs", "Syncs whose success or failure a webhook had told before it was known."),
            "missed": ("missed_webhooks", "Syncs that succeeded or failed, and that a look found first."),
        }
        counted = {
            counter: CounterMetricFamily(f"airbyte_events_{name}", text, labels=["airbyte"])
            for counter, (name, text) in meanings.items()
        }
        settled = CounterMetricFamily(
            "airbyte_events_confirmations",
            "Notifications that were settled, by outcome.",
            labels=["airbyte", "outcome"],
        )
        for name, each in self._pipelines.items():
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


def _each(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=["airbyte"])

"""How a listener does: its store, its instances, what it does for them. For the dashboard and ``doctor``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airbyte_events import __version__
from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.bus.bus import EventBus
from airbyte_events.listener.leader import HeldLease, LeaderElection
from airbyte_events.listener.pipeline import Pipeline
from airbyte_events.store.base import EventStore


class Status:
    """``GET /v1/status``.

    :param unready: what is not ready, by part.
    :param answers: how many webhooks were answered here, by the HTTP status.
    """

    def __init__(
        self,
        store: EventStore,
        bus: EventBus,
        pipelines: Mapping[str, Pipeline],
        election: LeaderElection,
        unready: Callable[[], dict[str, str]],
        answers: Callable[[], dict[str, int]],
    ) -> None:
        self._store = store
        self._bus = bus
        self._pipelines = pipelines
        self._election = election
        self._unready = unready
        self._answers = answers
        self._started_at = utcnow()

    @property
    def route(self) -> Route:
        return Route("/status", self.tell)

    async def tell(self, request: Request) -> Response:
        """All of it."""
        leases = await self._store.holders()
        known = self._election.names
        return JSONResponse(
            {
                "listener": {
                    "version": __version__,
                    "name": self._election.holder,
                    "started_at": format_time(self._started_at),
                    "subscriptions": self._bus.subscriptions,
                    "faults": self._unready(),
                    "webhooks": self._answers(),
                },
                "store": asdict(await self._store.stats()),
                "leases": [{"name": name, "holder": leases[name]} for name in sorted(leases) if name in known],
                "instances": [await self._instance(name, each) for name, each in self._pipelines.items()],
            }
        )

    async def _instance(self, name: str, pipelines: Pipeline) -> dict[str, Any]:
        duty: HeldLease | None = self._election.held.get(f"sources/{name}")
        monitor, poller = pipelines.monitor, pipelines.poller
        return {
            "name": name,
            "url": pipelines.airbyte.url,
            "here_since": None if duty is None else format_time(duty.since),
            "push_proven": None if monitor is None else monitor.push_proven,
            "watched": (await self._store.queues(name)).watched,
            "looked_at": await self._store.recall(f"looked_at/{name}"),
            "seconds_between_looks": None if poller is None else poller.seconds_between_looks,
            "failed_looks": None if poller is None else poller.failures,
            "backoff_seconds": round(pipelines.airbyte.backing_off, 1),
            "counters": {what: count for what, count in asdict(pipelines.counters).items() if isinstance(count, int)},
        }

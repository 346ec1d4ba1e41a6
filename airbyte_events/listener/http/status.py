"""The status of a listener, its store and its instances, for the dashboard and ``doctor``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from airbyte_events import __version__
from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.bus.bus import EventBus
from airbyte_events.listener.leader import LeaderElection
from airbyte_events.listener.pipeline import Pipeline
from airbyte_events.store.base import EventStore


@dataclass(eq=False)
class Status:
    """``GET /v1/status``.

    :param responses: the number of webhooks answered here, by HTTP status.
    """

    store: EventStore
    bus: EventBus
    pipelines: Mapping[str, Pipeline]
    election: LeaderElection
    faults: Callable[[], dict[str, str]]
    responses: Mapping[str, int]
    _started_at: datetime = field(default_factory=utcnow, init=False)

    async def page(self, request: Request) -> Response:
        leases = await self.store.holders()
        return JSONResponse(
            {
                "listener": {
                    "version": __version__,
                    "name": self.election.identity,
                    "started_at": format_time(self._started_at),
                    "subscriptions": self.bus.subscriptions,
                    "faults": self.faults(),
                    "webhooks": dict(self.responses),
                },
                "store": asdict(await self.store.stats()),
                "leases": [
                    {"name": name, "holder": leases[name]} for name in sorted(leases) if name in self.election.tasks
                ],
                "instances": [await self._instance(name, each) for name, each in self.pipelines.items()],
            }
        )

    async def _instance(self, name: str, pipeline: Pipeline) -> dict[str, Any]:
        held = self.election.held.get(f"sources/{name}")
        monitor, poller = pipeline.monitor, pipeline.poller
        return {
            "name": name,
            "url": pipeline.airbyte.url,
            "here_since": None if held is None else format_time(held.since),
            "push_proven": None if monitor is None else monitor.push_proven,
            "watched": (await self.store.queues(name)).watched,
            "looked_at": format_time(await pipeline.as_of()),
            "seconds_between_looks": None if poller is None else poller.interval,
            "failed_looks": None if poller is None else poller.failures,
            "backoff_seconds": round(pipeline.airbyte.backing_off, 1),
            "counters": {
                "looks" if counter == "lists" else counter: count
                for counter, count in asdict(pipeline.counters).items()
                if isinstance(count, int)
            },
        }

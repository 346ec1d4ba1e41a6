"""Viewers: clients with an open stream or a request in the last minute."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import StoreError
from airbyte_events.listener.pipeline import Pipeline
from airbyte_events.store.base import EventStore

logger = logging.getLogger(__name__)

VIEW_SECONDS = 60.0
"""How long a viewer counts after a request: dashboards and commands ask again."""

EXCHANGE_SECONDS = 10.0
"""The interval at which listeners that share a store notify each other of their viewers."""

_KEY = "viewed_at"


@dataclass(eq=False)
class Viewers:
    """The viewers of a listener. While there are any, its pipelines poll more often.

    Another listener may lead an instance, so listeners that share a store notify each other by a value there.
    """

    store: EventStore
    pipelines: Collection[Pipeline]
    exchange: float = EXCHANGE_SECONDS
    _requests: int = field(default=0, init=False)
    _until: float = field(default=-math.inf, init=False)
    _came: Wakeup = field(default_factory=Wakeup, init=False)

    @property
    def present(self) -> bool:
        """Whether there is a viewer at this listener."""
        return self._requests > 0 or anyio.current_time() < self._until

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as a viewer while it lasts, as a stream does, and for :data:`VIEW_SECONDS` after that."""
        if not self.present:
            self._came.set()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._until = anyio.current_time() + VIEW_SECONDS

    async def run(self) -> None:
        """Have the pipelines poll more often while there are viewers, until cancelled."""
        known: str | None = None
        first = True
        while True:
            viewed = self.present
            if self.store.shared:
                try:
                    if viewed:
                        known = format_time(utcnow()) or ""
                        await self.store.remember(_KEY, known)
                    elif (value := await self.store.recall(_KEY)) != known:
                        # Compared, not read as a time: the clocks of listeners differ.
                        known, viewed = value, not first
                except StoreError as exc:
                    logger.debug("could not exchange viewers with other listeners: error=%s", exc)
            first = False
            if viewed:
                for pipeline in self.pipelines:
                    pipeline.view(3 * self.exchange)
            with anyio.move_on_after(self.exchange if viewed or self.store.shared else math.inf):
                await self._came.wait()


@dataclass(frozen=True, eq=False)
class CountViewers:
    """ASGI middleware that counts requests as viewers."""

    app: ASGIApp
    viewers: Viewers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.viewers.request():
            await self.app(scope, receive, send)

"""Hubs for Airflow: one for the wait of a worker, and one that all triggers of a triggerer share.

A shared hub lives in an asyncio task of its own, begun in an empty context: Airflow routes log lines by context, and
what the hub says belongs to no single task's log. It outlives the trigger that made it, lingers for the next one, and
begins anew when its Airflow connections have changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

import anyio
from airflow.providers.common.compat.sdk import AirflowNotFoundException, conf

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.errors import HubClosed, SettingsError, WaitTimeout
from airbyte_events.events import JobEvent
from airbyte_events.hub.hub import Hub
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.monitor.poller import Ticks
from airbyte_events_provider.config import SECTION
from airbyte_events_provider.connections.clients import open_airbyte, open_listener
from airbyte_events_provider.connections.read import aread_hub
from airbyte_events_provider.connections.settings import HubSettings

logger = logging.getLogger(__name__)

REREAD_SECONDS = 300.0
"""So often a shared hub looks whether its Airflow connections have changed."""

STARTING = 4
"""So many jobs are started at a time: Airbyte serves five requests of the public API at a time."""

_READ_ATTEMPTS = 3
_LONGEST_PAUSE = 15.0
_PATIENCE = 60.0


@contextlib.asynccontextmanager
async def open_hub(airbyte: AirbyteClient, settings: HubSettings, ticks: Ticks | None = None) -> AsyncIterator[Hub]:
    """A hub for these settings: ``async with open_hub(airbyte, settings) as hub``.

    :param airbyte: the client for ``settings.airbyte``.
    :param ticks: how often to poll while no listener tells.
    """
    async with contextlib.AsyncExitStack() as stack:
        feed = None if settings.listener is None else await stack.enter_async_context(open_listener(settings.listener))
        grace = conf.getfloat(SECTION, "fallback_after", fallback=30.0)
        hub = Hub(airbyte, feed, instance=settings.airbyte.instance, ticks=ticks, grace=grace)
        yield await stack.enter_async_context(hub)


async def wait_alone(
    settings: HubSettings,
    job_id: int,
    *,
    connection_id: str | None = None,
    started_at: datetime | None = None,
    until: float | None = None,
    poll_interval: float = 10.0,
) -> JobEvent:
    """Wait for a job's end by a hub for this one wait; parameters and errors are those of :meth:`Hub.wait`."""
    async with (
        open_airbyte(settings.airbyte) as airbyte,
        open_hub(airbyte, settings, Ticks(unproven=poll_interval)) as hub,
    ):
        return await hub.wait(job_id, connection_id=connection_id, started_at=started_at, until=until)


class HubKey(NamedTuple):
    """What waits must have in common to share a hub: the ids of the Airflow connections, as they were given."""

    airbyte_conn_id: str
    listener_conn_id: str | None = None


async def wait_shared(
    key: HubKey,
    job_id: int,
    *,
    connection_id: str | None = None,
    started_at: datetime | None = None,
    until: float | None = None,
    poll_interval: float = 10.0,
) -> JobEvent:
    """Wait for a job's end by the hub that this event loop has for the key, and by the next if that one ends.

    :param poll_interval: seconds between looks while no listener tells; the shortest that is asked for counts.
    :raises SettingsError: if the Airflow connection of the Airbyte is missing or wrong.
    :raises UnknownJob: if Airbyte has no such job.
    :raises WaitTimeout: if the job has not ended by ``until``, or nobody could be asked then.
    """
    failures = 0
    while True:
        try:
            async with shared_hub(key) as shared:
                with shared.ticks.wanting(poll_interval):
                    return await shared.hub.wait(
                        job_id, connection_id=connection_id, started_at=started_at, until=until
                    )
        except HubClosed as exc:
            failures += 1
            if until is not None and time.time() > until + _PATIENCE:
                raise WaitTimeout(f"job {job_id}: there was nobody to ask for its status: {exc}") from exc
            logger.debug("waiting for job %d goes on with another hub: %s", job_id, exc)
        await anyio.sleep(pause(failures, longest=_LONGEST_PAUSE, least=0))


@contextlib.asynccontextmanager
async def shared_hub(key: HubKey) -> AsyncIterator[SharedHub]:
    """Join the hub that this event loop has for the key; there is one from now on.

    :raises SettingsError: if the Airflow connection of the Airbyte is missing or wrong.
    :raises HubClosed: if it could not be opened for another reason.
    """
    hubs = _hubs.setdefault(asyncio.get_running_loop(), {})
    shared = hubs.get(key)
    if shared is None:
        shared = hubs[key] = SharedHub(key, hubs)
    with shared.joined():
        await shared.opened()
        yield shared


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedTicks(Ticks):
    """Ticks as the most impatient of those who wait wants them."""

    wanted: Counter[float] = field(default_factory=Counter)

    def due(self, monitor: Monitor) -> float:
        if not monitor.watches.jobs and not monitor.watches.followers:
            return self.idle
        return min(self.wanted, default=self.unproven)

    @contextlib.contextmanager
    def wanting(self, seconds: float) -> Iterator[None]:
        """Somebody waits meanwhile who wants a look so often."""
        self.wanted[seconds] += 1
        try:
            yield
        finally:
            self.wanted[seconds] -= 1
            if not self.wanted[seconds]:
                del self.wanted[seconds]


class SharedHub:
    """A hub and the task that it lives in. Made and joined by :func:`shared_hub`.

    :param key: whose it is.
    :param hubs: where it is found, until it ends.
    """

    hub: Hub
    airbyte: AirbyteClient

    def __init__(self, key: HubKey, hubs: dict[HubKey, SharedHub]) -> None:
        self.key = key
        self.ticks = SharedTicks()
        self.starting = anyio.CapacityLimiter(STARTING)
        self._hubs = hubs
        self._waiting = 0
        self._turned = Wakeup()  # the first came, or the last has gone
        self._settled = anyio.Event()  # opened, or failed to
        self._failure: Exception | None = None
        self._task = contextvars.Context().run(asyncio.create_task, self._live(), name=f"hub of {key.airbyte_conn_id}")

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Somebody needs it meanwhile."""
        self._waiting += 1
        self._turned.set()
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._turned.set()

    async def opened(self) -> None:
        """Returns when it can be used; raises as :func:`shared_hub` does."""
        await self._settled.wait()
        if isinstance(self._failure, (SettingsError, AirflowNotFoundException)):
            raise SettingsError(str(self._failure)) from self._failure
        if self._failure is not None:
            raise HubClosed(f"no hub could be opened: {self._failure}") from self._failure

    async def _live(self) -> None:
        try:
            settings = await self._read()
            async with (
                open_airbyte(settings.airbyte) as self.airbyte,
                open_hub(self.airbyte, settings, self.ticks) as self.hub,
            ):
                logger.info("waiting for the jobs of %s by %s", settings.airbyte.url, _source(settings))
                _spare_the_heap()
                self._settled.set()
                await self._until_unneeded(settings)
        except Exception as exc:
            # Those who wait are told: by the hub, or by opened().
            self._failure = exc
            if not isinstance(exc, (SettingsError, AirflowNotFoundException)):
                logger.exception("the hub for Airflow connection %r ended", self.key.airbyte_conn_id)
        except asyncio.CancelledError:
            self._failure = HubClosed("the event loop ends")
            raise
        finally:
            self._leave()
            self._settled.set()

    def _leave(self) -> None:
        """Whoever comes from now on gets another hub."""
        if self._hubs.get(self.key) is self:
            del self._hubs[self.key]

    async def _read(self) -> HubSettings:
        for attempt in range(1, _READ_ATTEMPTS):
            # Airflow says of a connection that it could not read what it says of one that does not exist.
            with contextlib.suppress(AirflowNotFoundException):
                return await aread_hub(*self.key)
            await anyio.sleep(attempt)
        return await aread_hub(*self.key)

    async def _until_unneeded(self, settings: HubSettings) -> None:
        linger = conf.getfloat(SECTION, "hub_linger", fallback=60.0)
        reread_at = time.monotonic() + REREAD_SECONDS
        while True:
            self._turned.clear()
            needed = self._waiting > 0
            with anyio.move_on_after(reread_at - time.monotonic() if needed else linger) as scope:
                await self._turned.wait()
            if not scope.cancelled_caught:
                continue
            if not self._waiting or await self._outdated(settings):
                self._leave()
                return
            reread_at = time.monotonic() + REREAD_SECONDS

    async def _outdated(self, settings: HubSettings) -> bool:
        try:
            current = await aread_hub(*self.key)
        except (AirflowNotFoundException, SettingsError) as exc:
            logger.warning("Airflow connection %r can't be read any more: %s", self.key.airbyte_conn_id, exc)
            return False
        if current != settings:
            logger.info("Airflow connection %r has changed: beginning anew", self.key.airbyte_conn_id)
        return current != settings


@cache
def _spare_the_heap() -> None:
    """Take what the process holds by now, Airflow itself for the most part, out of garbage collection.

    A thousand triggers are objects enough to have Python collect all of its heap, and with Airflow's in it that stops
    the event loop for 100 to 200 ms.
    """
    gc.freeze()


def _source(settings: HubSettings) -> str:
    return "polling alone" if settings.listener is None else f"the listener {settings.listener.url}"


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[HubKey, SharedHub]] = WeakKeyDictionary()

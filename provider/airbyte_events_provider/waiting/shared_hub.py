"""Hubs in Airflow: one for each wait in a worker, and one that all triggers of a triggerer share.

A shared hub runs in its own asyncio task with an empty context, because Airflow routes log lines to tasks by context.
It stays open for a while after its last use, and is replaced when its Airflow connections have changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from typing import NamedTuple, TypedDict, Unpack
from weakref import WeakKeyDictionary

import anyio
from airflow.providers.common.compat.sdk import AirflowNotFoundException, conf

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.turns import Turns
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import HubClosed, SettingsError, WaitTimeout
from airbyte_events.events import JobEvent, Progress
from airbyte_events.hub.hub import Hub
from airbyte_events.jobs import JobSystem
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.monitor.poller import Ticks
from airbyte_events_provider.config import SECTION
from airbyte_events_provider.connections.clients import open_airbyte, open_listener
from airbyte_events_provider.connections.read import aread_hub
from airbyte_events_provider.connections.settings import HubSettings
from airbyte_events_provider.links.airbyte import link_xcoms
from airbyte_events_provider.stats import count_hub
from airbyte_events_provider.waiting.progress import ProgressWatch

logger = logging.getLogger(__name__)

REREAD_SECONDS = 300.0
"""How often a shared hub checks whether its Airflow connections have changed."""

STARTING = 4
"""The maximum of jobs that are started at a time: Airbyte serves five requests of the public API at a time."""

_READ_ATTEMPTS = 3
_MAX_PAUSE = 15.0
_GRACE_SECONDS = 60.0


class JobWait(TypedDict, total=False):
    """Keyword arguments of :meth:`Hub.wait`."""

    connection_id: str | None
    started_at: datetime | None
    until: float | None
    task_url: str | None
    waiting_since: datetime | None


@contextlib.asynccontextmanager
async def open_hub(airbyte: JobSystem, settings: HubSettings, ticks: Ticks | None = None) -> AsyncIterator[Hub]:
    """Open a hub: ``async with open_hub(airbyte, settings) as hub``.

    :param airbyte: the client for ``settings.airbyte``.
    :param ticks: how often to poll without a listener.
    """
    async with contextlib.AsyncExitStack() as stack:
        feed = None if settings.listener is None else await stack.enter_async_context(open_listener(settings.listener))
        grace = conf.getfloat(SECTION, "fallback_after", fallback=30.0)
        hub = Hub(airbyte, feed, instance=settings.airbyte.instance, ticks=ticks, grace=grace)
        yield await stack.enter_async_context(hub)


async def wait_alone(
    settings: HubSettings, job_id: int, poll_interval: float, watch: ProgressWatch, **wait: Unpack[JobWait]
) -> JobEvent:
    """Wait for a job with a separate hub, and watch its progress; raises as :meth:`Hub.wait` does."""
    async with (
        open_airbyte(settings.airbyte) as airbyte,
        open_hub(airbyte, settings, Ticks(unproven=poll_interval)) as hub,
    ):
        return await watch.during(hub.wait(job_id, **wait), partial(hub.progress, job_id))


class HubKey(NamedTuple):
    """The key of a shared hub: ids of Airflow connections, as in the tasks' arguments."""

    airbyte_conn_id: str
    listener_conn_id: str | None = None


async def read_shared(key: HubKey, job_id: int, *, streams: bool, max_age: float) -> Progress | None:
    """Return a job's progress by the event loop's hub for the key; raises as :func:`shared_hub` does."""
    async with shared_hub(key) as shared:
        return await shared.hub.progress(job_id, streams=streams, max_age=max_age)


async def wait_shared(
    key: HubKey, job_id: int, poll_interval: float, log: Callable[[str, str], None], **wait: Unpack[JobWait]
) -> JobEvent:
    """Wait for a job with the event loop's hub for the key; with another one if that closes.

    :param poll_interval: seconds between polls without a listener; the shortest interval of all waiting tasks applies.
    :param log: called with a log line's format and text when the wait begins.
    :raises SettingsError: if the Airflow connection of the Airbyte is missing or wrong.
    :raises UnknownJob: if Airbyte has no such job.
    :raises WaitTimeout: if the job has not completed by ``until``, or its status is unknown then.
    """
    failures, until = 0, wait.get("until")
    while True:
        try:
            async with shared_hub(key) as shared:
                if not failures:
                    log("%s", shared.waiting_line(job_id, wait.get("connection_id")))
                with shared.ticks.at_most(poll_interval):
                    return await shared.hub.wait(job_id, **wait)
        except HubClosed as exc:
            failures += 1
            if until is not None and time.time() > until + _GRACE_SECONDS:
                raise WaitTimeout(f"job {job_id}: its status is not known: {exc}") from exc
            logger.debug("waiting by another hub: job=%d reason=%s", job_id, exc)
        await anyio.sleep(pause(failures, longest=_MAX_PAUSE, least=0))


@contextlib.asynccontextmanager
async def shared_hub(key: HubKey) -> AsyncIterator[SharedHub]:
    """Use the event loop's hub for the key; open one if there is none.

    :raises SettingsError: if the Airflow connection of the Airbyte is missing or wrong.
    :raises HubClosed: if it could not be opened for another reason.
    """
    hubs = _hubs.setdefault(asyncio.get_running_loop(), {})
    shared = hubs.get(key)
    if shared is None:
        shared = hubs[key] = SharedHub(key, hubs)
    with shared.used():
        await shared.opened()
        yield shared


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedTicks(Ticks):
    """The shortest poll interval of all waiting tasks."""

    intervals: Counter[float] = field(default_factory=Counter)

    def due(self, monitor: Monitor) -> float:
        if not monitor.watches.jobs and not monitor.watches.followers:
            return self.idle
        return min(self.intervals, default=self.unproven)

    @contextlib.contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Poll at least this often within a ``with`` statement."""
        self.intervals[seconds] += 1
        try:
            yield
        finally:
            self.intervals[seconds] -= 1
            if not self.intervals[seconds]:
                del self.intervals[seconds]


class SharedHub:
    """A hub and its asyncio task; see :func:`shared_hub`.

    :param hubs: the registry that contains it until it closes.
    """

    hub: Hub
    airbyte: JobSystem
    settings: HubSettings

    def __init__(self, key: HubKey, hubs: dict[HubKey, SharedHub]) -> None:
        self.key = key
        self.ticks = SharedTicks()
        self.starting = anyio.CapacityLimiter(STARTING)
        self._hubs = hubs
        self._users = 0
        self._users_changed = Wakeup()  # from none, or to none
        self._beginning = Turns()
        self._settled = anyio.Event()  # opened, or failed to
        self._failure: Exception | None = None
        self._task = contextvars.Context().run(asyncio.create_task, self._run(), name=f"hub of {key.airbyte_conn_id}")

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Keep the hub open within a ``with`` statement."""
        self._users += 1
        self._users_changed.set()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._users_changed.set()

    async def opened(self) -> None:
        """Wait until the hub is open; raises as :func:`shared_hub` does."""
        await self._settled.wait()
        if isinstance(self._failure, (SettingsError, AirflowNotFoundException)):
            raise SettingsError(str(self._failure)) from self._failure
        if self._failure is not None:
            raise HubClosed(f"no hub could be opened: {self._failure}") from self._failure
        # Hundreds of triggers begin at once.
        await self._beginning.wait()

    def waiting_line(self, job_id: int, connection_id: str | None) -> str:
        """Return the log line of a task that begins to wait: for which job, by what it is notified, and the job's page.

        The only one: a triggerer's log lines block its event loop while Airflow is busy.
        """
        airbyte, listener = self.settings.airbyte, self.settings.listener
        links = link_xcoms(airbyte, listener, connection_id=connection_id, job_id=job_id)
        facts = {
            "job": job_id,
            "connection": connection_id,
            "notified_by": "polling" if listener is None else "listener",
            "url": next(iter(links.values()), None),
        }
        return "waiting for Airbyte job: " + " ".join(f"{name}={value}" for name, value in facts.items() if value)

    async def _run(self) -> None:
        try:
            settings = self.settings = await self._read()
            await count_hub()
            async with (
                open_airbyte(settings.airbyte) as self.airbyte,
                open_hub(self.airbyte, settings, self.ticks) as self.hub,
            ):
                listener = None if settings.listener is None else settings.listener.url
                logger.info("hub opened: airbyte=%s listener=%s", settings.airbyte.url, listener or "none, polling")
                _freeze_heap()
                self._settled.set()
                await self._until_unused_or_outdated(settings)
        except Exception as exc:
            # The hub, or opened(), raises it in waiting tasks.
            self._failure = exc
            if not isinstance(exc, (SettingsError, AirflowNotFoundException)):
                logger.exception("hub failed: airbyte_conn_id=%s", self.key.airbyte_conn_id)
        except asyncio.CancelledError:
            self._failure = HubClosed("the event loop ends")
            raise
        finally:
            self._unregister()
            self._settled.set()

    def _unregister(self) -> None:
        if self._hubs.get(self.key) is self:
            del self._hubs[self.key]

    async def _read(self) -> HubSettings:
        for attempt in range(1, _READ_ATTEMPTS):
            # Airflow raises the same error for a failed read as for a missing connection.
            with contextlib.suppress(AirflowNotFoundException):
                return await aread_hub(*self.key)
            await anyio.sleep(attempt)
        return await aread_hub(*self.key)

    async def _until_unused_or_outdated(self, settings: HubSettings) -> None:
        linger = conf.getfloat(SECTION, "hub_linger", fallback=60.0)
        reread_at = time.monotonic() + REREAD_SECONDS
        while True:
            self._users_changed.clear()
            with anyio.move_on_after(reread_at - time.monotonic() if self._users else linger) as scope:
                await self._users_changed.wait()
            if not scope.cancelled_caught:
                continue
            if not self._users or await self._is_outdated(settings):
                self._unregister()
                return
            reread_at = time.monotonic() + REREAD_SECONDS

    async def _is_outdated(self, settings: HubSettings) -> bool:
        conn_id = self.key.airbyte_conn_id
        try:
            current = await aread_hub(*self.key)
        except (AirflowNotFoundException, SettingsError) as exc:
            logger.warning("Airflow connection can't be read any more: conn_id=%s reason=%s", conn_id, exc)
            return False
        if current != settings:
            logger.info("opening another hub: Airflow connection has changed: conn_id=%s", conn_id)
        return current != settings


@cache
def _freeze_heap() -> None:
    # Exclude Airflow's own objects from garbage collection, and what was imported since. A thousand triggers allocate
    # enough objects for full collections, which would block the event loop for 100 to 200 ms each.
    gc.freeze()


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[HubKey, SharedHub]] = WeakKeyDictionary()

"""Leader election by leases: of the listeners that share a store, one at a time runs each task.

A listener renews its leases well before they expire and tries to acquire the others every few seconds, so that one
that dies, hangs or loses the store is replaced as soon as its leases have expired.
"""

from __future__ import annotations

import logging
import math
import os
import random
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol

import anyio

from airbyte_events._utils.supervision import supervise
from airbyte_events._utils.times import utcnow
from airbyte_events._utils.until import until
from airbyte_events.errors import StoreError
from airbyte_events.store.base import LeaseTable
from airbyte_events.store.records import Lease

logger = logging.getLogger(__name__)

LeaderTask = Callable[[Lease], Awaitable[None]]
"""What the leader runs. It is cancelled when the lease is lost, and returns if it notices that first."""


class Health(Protocol):
    """Whether a task can succeed on this listener."""

    @property
    def failing(self) -> bool:
        """Whether it keeps failing here, so that another listener should try."""

    async def recovered(self) -> bool:
        """Return whether it would succeed here now."""


_RELEASE_SECONDS = 2.0


def _candidates(name: str) -> str:
    """Return the name of the lease that a candidate takes, so that the leader knows that there is one."""
    return f"candidates/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLease:
    """A lease that this listener holds."""

    since: datetime
    lease: Lease


@dataclass(eq=False)
class LeaderElection:
    """Run each task while this listener holds its lease."""

    store: LeaseTable
    tasks: Mapping[str, LeaderTask]
    """By the lease's name."""
    _: KW_ONLY
    health: Mapping[str, Health] = field(default_factory=dict)
    """Of tasks that can fail on one listener and succeed on another, by the lease's name. A failing listener passes the
    lease on if there is a candidate."""
    lease: float = 9.0
    """Seconds after which a lease that is not renewed expires."""
    renewal: float = 2.0
    """Seconds between two renewals, and between two attempts to acquire a lease."""
    spread: float = 1.0
    """A listener that holds all leases but one waits so many seconds before it tries; with fewer, it waits less."""
    turn: float = 3600.0
    """After so many seconds a listener with several leases releases one, so that they spread over newer listeners."""
    probe: float = 5.0
    """Seconds between two checks whether a task that failed here would succeed again."""
    identity: str = field(init=False)
    """The name of this listener, different for every process."""
    held: dict[str, HeldLease] = field(default_factory=dict, init=False)
    """The leases that this listener holds, by name."""
    faults: dict[str, str] = field(default_factory=dict, init=False)
    """The tasks that fail here and why, by the lease's name. Their leases are released and acquired again later."""
    _stood_down: set[str] = field(default_factory=set, init=False)
    _unanswered: set[str] = field(default_factory=set, init=False)
    _scope: anyio.CancelScope = field(default_factory=anyio.CancelScope, init=False)

    def __post_init__(self) -> None:
        self.identity = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        if not self.store.shared or len(self.tasks) < 2:
            self.spread = 0.0

    def stop(self) -> None:
        """Cancel the tasks and release all leases, for good."""
        self._scope.cancel()

    async def run(self) -> None:
        with self._scope:
            async with anyio.create_task_group() as group:
                for name, task in self.tasks.items():
                    group.start_soon(supervise, name, partial(self._campaign, name, task), self.faults)
                for name, health in self.health.items():
                    group.start_soon(self._recover, name, health)

    async def _campaign(self, name: str, task: LeaderTask) -> None:
        with self.store.news(f"leases/{name}") as released:
            while True:
                await self._let_others_try()
                if name in self._stood_down:
                    # A failing leader is still better than none.
                    await anyio.sleep(self.renewal)
                requested_at = anyio.current_time()
                lease = await self._acquire(name)
                if lease is not None:
                    await self._lead(lease, requested_at + self.lease, task)
                elif self.store.shared and name in self.health and name not in self._stood_down:
                    await self._acquire(_candidates(name))
                with anyio.move_on_after(self.renewal):
                    await released.wait()

    async def _let_others_try(self) -> None:
        # A random part, as listeners start and are woken together; then a part for each lease that is held by then.
        await anyio.sleep(random.random() * self.spread / 2)  # noqa: S311
        await anyio.sleep(len(self.held) / len(self.tasks) * self.spread / 2)

    async def _recover(self, name: str, health: Health) -> None:
        """Make this listener a candidate again once the task would succeed."""
        while True:
            await anyio.sleep(self.probe)
            if name in self._stood_down and await health.recovered():
                self._stood_down.discard(name)

    async def _acquire(self, name: str) -> Lease | None:
        """Return the lease; None if another listener holds it or the store does not respond."""
        try:
            with anyio.fail_after(self.renewal):
                lease = await self.store.acquire(name, self.identity, self.lease)
        except (StoreError, TimeoutError) as exc:
            if name not in self._unanswered:
                logger.warning("could not request lease %s, retrying: error=%s", name, _reason(exc), extra=_lease(name))
            self._unanswered.add(name)
            return None
        self._unanswered.discard(name)
        return lease

    async def _lead(self, lease: Lease, deadline: float, task: LeaderTask) -> None:
        # On this clock the lease expires before it does on the store's: it counts from the request.
        held = anyio.CancelScope(deadline=deadline)
        self.held[lease.name] = HeldLease(since=utcnow(), lease=lease)
        logger.info("acquired lease %s (epoch %d)", lease.name, lease.fence, extra=_lease(lease.name))
        try:
            with held:
                async with until(partial(self._renew, lease, held)):
                    await task(lease)
        finally:
            del self.held[lease.name]
            lost = anyio.current_time() >= held.deadline
            level, verb = (logging.WARNING, "lost") if lost else (logging.INFO, "released")
            logger.log(level, "%s lease %s (epoch %d)", verb, lease.name, lease.fence, extra=_lease(lease.name))
            with anyio.move_on_after(_RELEASE_SECONDS, shield=True):
                try:
                    await self.store.release(lease)
                except StoreError as exc:
                    logger.warning("could not release lease %s: error=%s", lease.name, exc, extra=_lease(lease.name))

    async def _renew(self, lease: Lease, held: anyio.CancelScope) -> None:
        """Renew the lease until it is lost or another listener should acquire it.

        :param held: expires with the lease.
        """
        turn_ends = anyio.current_time() + self.turn * random.uniform(0.8, 1.0)  # noqa: S311
        while True:
            await anyio.sleep(self.renewal)
            if self.spread and len(self.held) > 1 and anyio.current_time() > turn_ends:
                return
            requested_at = anyio.current_time()
            try:
                with anyio.fail_after(self.renewal):
                    renewed = await self.store.acquire(lease.name, self.identity, self.lease)
            except (StoreError, TimeoutError) as exc:
                # The deadline stays as it is.
                name = lease.name
                logger.warning("could not renew lease %s, retrying: error=%s", name, _reason(exc), extra=_lease(name))
                continue
            if renewed != lease:
                held.deadline = -math.inf
                return
            held.deadline = requested_at + self.lease
            if await self._should_stand_down(lease):
                self._stood_down.add(lease.name)
                return

    async def _should_stand_down(self, lease: Lease) -> bool:
        """Return whether the task fails here while another listener is a candidate."""
        health = self.health.get(lease.name)
        if health is None or not health.failing or not self.store.shared:
            return False
        try:
            with anyio.fail_after(self.renewal):
                candidate = (await self.store.holders()).get(_candidates(lease.name))
        except (StoreError, TimeoutError):
            return False
        if candidate in (None, self.identity):
            return False
        logger.warning(
            "releasing lease %s, as its task fails here: candidate=%s", lease.name, candidate, extra=_lease(lease.name)
        )
        return True


def _reason(exc: Exception) -> str:
    return str(exc) or "the store does not respond"


def _lease(name: str) -> dict[str, str]:
    return {"lease": name}

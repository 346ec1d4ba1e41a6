"""LeaderElection: what one listener at a time does for all that share a store, and who that is.

Each duty has a lease. A listener renews those that it holds well before they end, and tries for the others now and
then: one that dies, hangs or loses the store is replaced when its leases have ended.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

import anyio

from airbyte_events._utils.supervision import supervise
from airbyte_events._utils.times import utcnow
from airbyte_events.errors import StoreError
from airbyte_events.store.base import EventStore
from airbyte_events.store.records import Lease

logger = logging.getLogger(__name__)

LeaderTask = Callable[[Lease], Awaitable[None]]
"""What is done while a lease is held. It is cancelled when the lease ends, and returns if it finds that out first."""


class Health(Protocol):
    """Whether a listener gets something done at all."""

    @property
    def failing(self) -> bool:
        """Whether it fails again and again here, so that another had better try."""

    async def recovered(self) -> bool:
        """Try whether it would succeed now."""


LEASE_SECONDS = 9.0
"""How long a lease lasts that is not renewed."""

RENEWAL_SECONDS = 2.0
"""From one renewal to the next, and from one try to take over to the next."""

SPREAD_SECONDS = 1.0
"""Who holds all leases but one lets others try first for so long; who holds fewer, for less."""

TURN_SECONDS = 3600.0
"""After so long a listener that holds several gives one back, so that they spread over those that have come since."""

PROBE_SECONDS = 5.0
"""From one probe to the next whether a listener that gave a lease back would succeed now."""

_RELEASE_SECONDS = 2.0


def _candidates(name: str) -> str:
    """The lease of whoever waits for a lease: how its holder learns that somebody does."""
    return f"candidates/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLease:
    """A duty that this listener has.

    :param since: when it took it.
    :param lease: by which right.
    """

    since: datetime
    lease: Lease


class LeaderElection:
    """Does what its listener holds the leases for.

    :param store: where the leases are.
    :param works: what there is to do, by the lease's name.
    :param health: of what can fail at one listener and succeed at another, likewise. Where it fails, the lease is
        given back if somebody waits for it.
    :param lease: see :data:`LEASE_SECONDS`.
    :param renewal: see :data:`RENEWAL_SECONDS`.
    :param spread: see :data:`SPREAD_SECONDS`.
    :param turn: see :data:`TURN_SECONDS`.
    :param probe: see :data:`PROBE_SECONDS`.
    """

    def __init__(
        self,
        store: EventStore,
        works: Mapping[str, LeaderTask],
        *,
        health: Mapping[str, Health] | None = None,
        lease: float = LEASE_SECONDS,
        renewal: float = RENEWAL_SECONDS,
        spread: float = SPREAD_SECONDS,
        turn: float = TURN_SECONDS,
        probe: float = PROBE_SECONDS,
    ) -> None:
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        """This listener's name, which no other has had."""
        self.held: dict[str, HeldLease] = {}
        """What this listener does at the moment, by the lease's name."""
        self.faults: dict[str, str] = {}
        """What fails here, and why, likewise. Its lease is given back, and taken again after a pause."""
        self._store = store
        self._works = works
        self._health = health or {}
        self._stood_down: set[str] = set()
        self._lease = lease
        self._renewal = renewal
        self._spread = spread if store.shared and len(works) > 1 else 0.0
        self._turn = turn
        self._probe = probe
        self._unanswered: set[str] = set()
        self._scope = anyio.CancelScope()

    @property
    def names(self) -> Collection[str]:
        """The leases that there are."""
        return self._works.keys()

    def stop(self) -> None:
        """End what is done, and give back what is held, for good."""
        self._scope.cancel()

    async def run(self) -> None:
        """Do what can be had until cancelled or stopped."""
        with self._scope:
            async with anyio.create_task_group() as tasks:
                for name, work in self._works.items():
                    tasks.start_soon(supervise, name, partial(self._stand_by, name, work), self.faults)
                for name, health in self._health.items():
                    tasks.start_soon(self._recover, name, health)

    async def _stand_by(self, name: str, work: LeaderTask) -> None:
        with self._store.news(f"leases/{name}") as given_back:
            while True:
                await self._let_others_try()
                if name in self._stood_down:
                    # Whoever holds nothing but would fail is better than nobody.
                    await anyio.sleep(self._renewal)
                asked_at = anyio.current_time()
                lease = await self._acquire(name)
                if lease is not None:
                    await self._hold(lease, asked_at + self._lease, work)
                elif self._store.shared and name in self._health and name not in self._stood_down:
                    await self._acquire(_candidates(name))
                with anyio.move_on_after(self._renewal):
                    await given_back.wait()

    async def _let_others_try(self) -> None:
        # By chance, for those that start or are woken together, then by what each has got by then.
        await anyio.sleep(random.random() * self._spread / 2)  # noqa: S311
        await anyio.sleep(len(self.held) / len(self._works) * self._spread / 2)

    async def _recover(self, name: str, health: Health) -> None:
        """Have this listener be a candidate again once it would succeed."""
        while True:
            await anyio.sleep(self._probe)
            if name in self._stood_down and await health.recovered():
                self._stood_down.discard(name)

    async def _acquire(self, name: str) -> Lease | None:
        """None, too, if the store does not answer."""
        try:
            with anyio.fail_after(self._renewal):
                lease = await self._store.acquire(name, self.holder, self._lease)
        except (StoreError, TimeoutError) as exc:
            if name not in self._unanswered:
                fault = str(exc) or "the store gives no answer"
                logger.warning("whether %s can be had is not known: %s", name, fault, extra={"lease": name})
            self._unanswered.add(name)
            return None
        self._unanswered.discard(name)
        return lease

    async def _hold(self, lease: Lease, until: float, work: LeaderTask) -> None:
        # By this clock the lease ends before it does by the store's: it began when it was asked for.
        held = anyio.CancelScope(deadline=until)
        self.held[lease.name] = HeldLease(since=utcnow(), lease=lease)
        logger.info("%s is done here from now on (fence %d)", lease.name, lease.fence, extra={"lease": lease.name})
        try:
            with held:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._renew, lease, held)
                    await work(lease)
                    tasks.cancel_scope.cancel()
        finally:
            del self.held[lease.name]
            logger.info("%s is not done here any more (fence %d)", lease.name, lease.fence, extra={"lease": lease.name})
            with anyio.move_on_after(_RELEASE_SECONDS, shield=True):
                try:
                    await self._store.release(lease)
                except StoreError as exc:
                    logger.warning("%s could not be given back: %s", lease.name, exc, extra={"lease": lease.name})

    async def _renew(self, lease: Lease, held: anyio.CancelScope) -> None:
        turn_ends = anyio.current_time() + self._turn * random.uniform(0.8, 1.0)  # noqa: S311
        while True:
            await anyio.sleep(self._renewal)
            if self._spread and len(self.held) > 1 and anyio.current_time() > turn_ends:
                held.cancel()
                return
            asked_at = anyio.current_time()
            try:
                with anyio.fail_after(self._renewal):
                    renewed = await self._store.acquire(lease.name, self.holder, self._lease)
            except (StoreError, TimeoutError) as exc:
                # The deadline stays as it is.
                fault = str(exc) or "the store gives no answer"
                logger.warning("%s is not renewed: %s", lease.name, fault, extra={"lease": lease.name})
                continue
            if renewed != lease:
                held.cancel()
                return
            held.deadline = asked_at + self._lease
            if await self._had_better_pass_on(lease):
                self._stood_down.add(lease.name)
                held.cancel()
                return

    async def _had_better_pass_on(self, lease: Lease) -> bool:
        """Whether it fails here while somebody else waits for the lease."""
        health = self._health.get(lease.name)
        if health is None or not health.failing or not self._store.shared:
            return False
        try:
            with anyio.fail_after(self._renewal):
                candidate = (await self._store.holders()).get(_candidates(lease.name))
        except (StoreError, TimeoutError):
            return False
        if candidate in (None, self.holder):
            return False
        logger.warning("%s fails here and is left to %s", lease.name, candidate, extra={"lease": lease.name})
        return True

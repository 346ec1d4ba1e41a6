"""A store in memory, for tests, the simulator and triggerers. It removes the oldest rows beyond fixed limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel

from airbyte_events._utils.times import utcnow
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import CursorExpired
from airbyte_events.events import EVERYTHING, EventFilter, JobEvent, JobRef
from airbyte_events.store.base import PENDING_BYTES, UNBOUNDED, EventStore
from airbyte_events.store.identity import REPLACED
from airbyte_events.store.memory.inbox import MemoryInbox
from airbyte_events.store.memory.leases import Leases
from airbyte_events.store.memory.log import MemoryLog
from airbyte_events.store.notify import Wakeups, topics_of
from airbyte_events.store.records import (
    Appended,
    Attempt,
    Delivery,
    DeliveryState,
    Lease,
    LogPage,
    Outcome,
    Pending,
    Pruned,
    Queues,
    Receipt,
    Settle,
    States,
    StoredNotification,
    StoreStats,
    first_within,
)


class MemoryStore(EventStore):
    """A store of at most ``capacity`` events, ``capacity`` completed jobs and ``capacity`` notifications."""

    def __init__(self, *, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._log = MemoryLog(capacity)
        self._inbox = MemoryInbox(capacity)
        self._values: dict[str, str] = {}
        self._leases = Leases()
        # When the watch began, and when it expires by the event loop's clock.
        self._watches: dict[JobRef, tuple[datetime, float]] = {}
        self._appended = Wakeup()
        self._wakeups = Wakeups()

    @property
    def epoch(self) -> str:
        return self._log.epoch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        return None

    async def append(
        self,
        observed: Sequence[JobEvent],
        *,
        lease: Lease | None = None,
        known: States | None = None,
        settle: Settle | None = None,
    ) -> Appended:
        await anyio.lowlevel.checkpoint()
        self._leases.ensure(lease)
        appended = Appended.of([self._log.append(event) for event in observed], {})
        if settle is not None and appended.events:
            appended = replace(appended, outcomes=settle(appended.events))
            await self.settle(appended.outcomes, utcnow())
        for event in appended.events:
            if event.terminal:
                self._watches.pop(event.ref, None)
        if appended.events:
            self._appended.set()
        return appended

    async def annotate(self, states: Sequence[JobEvent]) -> None:
        await anyio.lowlevel.checkpoint()
        for state in states:
            self._log.annotate(state)

    async def head(self) -> int:
        await anyio.lowlevel.checkpoint()
        return self._log.head

    async def read(
        self,
        after: int,
        *,
        limit: int = 500,
        size: int = UNBOUNDED,
        wanted: EventFilter = EVERYTHING,
        epoch: str | None = None,
    ) -> LogPage:
        await anyio.lowlevel.checkpoint()
        if epoch not in (None, self.epoch):
            raise CursorExpired(REPLACED)
        return self._log.read(after, limit, size, wanted)

    async def changed(self, after: int, *, epoch: str | None = None) -> Sequence[JobEvent]:
        while self._log.head <= after and epoch in (None, self.epoch):
            await self._appended.wait()
        await anyio.lowlevel.checkpoint()
        return ()

    async def states(self, refs: Collection[JobRef]) -> States:
        await anyio.lowlevel.checkpoint()
        return self._states(refs)

    def _states(self, refs: Collection[JobRef]) -> States:
        return States({ref: state for ref in refs if (state := self._log.state(ref)) is not None}, refs=refs)

    async def jobs(
        self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING
    ) -> list[JobEvent]:
        await anyio.lowlevel.checkpoint()
        older = (
            state
            for sequence, state in self._log.states()
            if (before is None or sequence < before) and wanted.matches(state)
        )
        return list(islice(older, limit))

    async def history(self, ref: JobRef) -> list[JobEvent]:
        await anyio.lowlevel.checkpoint()
        return [event for event in self._log.events if event.ref == ref]

    async def receive(
        self,
        *,
        instance: str,
        body: bytes,
        kind: str,
        job_id: int | None,
        outcome: Outcome,
        received_at: datetime,
        targets: Collection[str] = (),
    ) -> Receipt:
        await anyio.lowlevel.checkpoint()
        item = StoredNotification(
            id=0, instance=instance, received_at=received_at, kind=kind, job_id=job_id, body=body, outcome=outcome
        )
        receipt = self._inbox.add(item, targets)
        if not receipt.duplicate:
            self._wakeups.wake(topics_of(instance, outcome, targets))
        return receipt

    async def pending(self, instance: str, *, after: int = 0, limit: int = 500) -> Pending:
        await anyio.lowlevel.checkpoint()
        waiting = islice((item for item in self._inbox.pending(instance) if item.id > after), limit)
        found, has_more = first_within(waiting, PENDING_BYTES)
        ids = {item.ref: item.id for item in found if item.ref is not None}
        return Pending(
            found,
            states=self._states(ids),
            announced={ref for ref, id_ in ids.items() if self._inbox.is_announced(ref, but=id_)},
            more=has_more or len(found) == limit,
        )

    async def settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> None:
        await anyio.lowlevel.checkpoint()
        self._wakeups.wake(f"inbox/{instance}" for instance in self._inbox.settle(outcomes, settled_at))

    async def notifications(self, *, limit: int = 100, before: int | None = None) -> list[StoredNotification]:
        await anyio.lowlevel.checkpoint()
        return self._inbox.newest(limit, before)

    async def announcements(self, refs: Mapping[JobRef, datetime | None]) -> dict[JobRef, list[StoredNotification]]:
        await anyio.lowlevel.checkpoint()
        return self._inbox.announcements(refs)

    async def recall(self, key: str) -> str | None:
        await anyio.lowlevel.checkpoint()
        return self._values.get(key)

    async def remember(self, key: str, value: str, *, lease: Lease | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        self._leases.ensure(lease)
        self._values[key] = value

    def news(self, topic: str) -> AbstractContextManager[Wakeup]:
        return self._wakeups.subscribe(topic)

    async def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        await anyio.lowlevel.checkpoint()
        return self._leases.acquire(name, holder, anyio.current_time(), seconds)

    async def release(self, lease: Lease) -> None:
        await anyio.lowlevel.checkpoint()
        self._leases.release(lease)
        self._wakeups.wake([f"leases/{lease.name}"])

    async def holders(self) -> dict[str, str]:
        await anyio.lowlevel.checkpoint()
        return self._leases.holders(anyio.current_time())

    async def watch(self, refs: Collection[JobRef], seconds: float) -> None:
        await anyio.lowlevel.checkpoint()
        self._expire_watches()
        until = anyio.current_time() + seconds
        fresh = set()
        for ref in refs:
            if (state := self._log.state(ref)) is not None and state.terminal:
                continue
            if ref not in self._watches:
                fresh.add(ref.instance)
            since, longest = self._watches.get(ref, (utcnow(), until))
            self._watches[ref] = since, max(longest, until)
        self._wakeups.wake(f"watches/{instance}" for instance in fresh)

    async def watched(self, instance: str) -> dict[int, datetime]:
        await anyio.lowlevel.checkpoint()
        self._expire_watches()
        return {ref.job_id: since for ref, (since, _) in self._watches.items() if ref.instance == instance}

    async def due(self, instance: str, *, but: Collection[str] = (), limit: int = 100) -> list[Delivery]:
        await anyio.lowlevel.checkpoint()
        now = utcnow()
        return [each for each in self._inbox.due(instance, but) if each.due_at <= now][:limit]

    async def next_due(self, instance: str, *, but: Collection[str] = ()) -> datetime | None:
        await anyio.lowlevel.checkpoint()
        return next((each.due_at for each in self._inbox.due(instance, but)), None)

    async def attempted(self, attempts: Sequence[Attempt]) -> None:
        await anyio.lowlevel.checkpoint()
        self._wakeups.wake(f"deliveries/{instance}" for instance in self._inbox.attempted(attempts))

    async def deliveries(
        self, *, limit: int = 100, before: int | None = None, state: DeliveryState | None = None
    ) -> list[Delivery]:
        await anyio.lowlevel.checkpoint()
        return list(islice(self._inbox.deliveries(state, before), limit))

    async def prune(self, before: datetime, *, keep: int) -> Pruned:
        await anyio.lowlevel.checkpoint()
        return Pruned(events=self._log.prune(before, keep), notifications=self._inbox.prune(before))

    async def stats(self) -> StoreStats:
        await anyio.lowlevel.checkpoint()
        log, inbox = self._log, self._inbox
        return StoreStats(
            first=log.removed + 1 if log.events else 0,
            head=log.head,
            events=len(log.events),
            jobs=log.jobs,
            notifications=len(inbox),
            pending=sum(1 for _ in inbox.pending()),
            due=sum(1 for _ in inbox.deliveries(DeliveryState.DUE)),
            dead=sum(1 for _ in inbox.deliveries(DeliveryState.DEAD)),
            bytes=0,
        )

    async def queues(self, instance: str) -> Queues:
        pending = next(iter(await self.pending(instance, limit=1)), None)
        return Queues(
            watched=len(await self.watched(instance)),
            pending_since=None if pending is None else pending.received_at,
            due_since=await self.next_due(instance),
        )

    async def check(self) -> None:
        await anyio.lowlevel.checkpoint()

    def forget_states(self) -> int:
        """Forget the latest state of every job, keep the log, and return its head."""
        self._log.forget_states()
        return self._log.head

    def _expire_watches(self) -> None:
        now = anyio.current_time()
        for ref in [ref for ref, (_, until) in self._watches.items() if until <= now]:
            del self._watches[ref]

"""The notifications and deliveries of a memory store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice

from airbyte_events._utils.times import utcnow
from airbyte_events.events import JobRef
from airbyte_events.store.base import ANNOUNCEMENTS, ANNOUNCING_KINDS, DeliveryOutbox, NotificationInbox, below
from airbyte_events.store.memory.parts import MemoryPart, at_once
from airbyte_events.store.notify import topics_of
from airbyte_events.store.records import (
    REPEATED_WITHIN,
    Arrival,
    Attempt,
    Delivery,
    DeliveryState,
    Outcome,
    Receipt,
    StoredNotification,
    digest_of,
)

MAX_BYTES = 128 * 1024 * 1024
"""Maximum size of all bodies together."""


class MemoryInbox(MemoryPart, NotificationInbox, DeliveryOutbox):
    """An inbox of at most ``capacity`` notifications and :data:`MAX_BYTES`. The oldest are removed, with deliveries."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._bytes = 0
        self._items: OrderedDict[int, StoredNotification] = OrderedDict()
        self._digests: dict[bytes, int] = {}
        self._deliveries: OrderedDict[int, Delivery] = OrderedDict()
        self._last_notification = 0
        self._last_delivery = 0

    @at_once
    def receive(self, arrival: Arrival) -> Receipt:
        digest = digest_of(arrival)
        if (known := self._find_same(arrival, digest)) is not None:
            return Receipt(id=known, duplicate=True)
        self._last_notification += 1
        item = self._items[self._last_notification] = StoredNotification(
            id=self._last_notification,
            instance=arrival.instance,
            received_at=arrival.received_at,
            kind=arrival.kind,
            job_id=arrival.job_id,
            body=arrival.body,
            outcome=arrival.outcome,
        )
        self._digests[digest] = item.id
        self._bytes += len(item.body)
        for target in dict.fromkeys(arrival.targets):
            self._last_delivery += 1
            self._deliveries[self._last_delivery] = Delivery(
                id=self._last_delivery,
                notification=item,
                target=target,
                state=DeliveryState.DUE,
                attempts=0,
                due_at=item.received_at,
            )
        while len(self._items) > self._capacity or self._bytes > MAX_BYTES:
            self._remove([next(iter(self._items))])
        self._wakeups.wake(topics_of(arrival))
        return Receipt(id=item.id, duplicate=False)

    def _find_same(self, arrival: Arrival, digest: bytes) -> int | None:
        before = self._digests.get(arrival.digest_before or b"")
        if before is not None and self._items[before].received_at > arrival.received_at - REPEATED_WITHIN:
            return before
        return self._digests.get(digest)

    def _pending(self, instance: str | None = None) -> Iterator[StoredNotification]:
        return (
            item
            for item in self._items.values()
            if item.outcome is Outcome.PENDING and instance in (None, item.instance)
        )

    @at_once
    def settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> None:
        self._settle(outcomes, settled_at)

    def _settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> None:
        queued = set()
        for id_, outcome in outcomes.items():
            if (item := self._items.get(id_)) is not None:
                done = None if outcome is Outcome.PENDING else settled_at
                self._items[id_] = replace(item, outcome=outcome, settled_at=done)
                if outcome is Outcome.PENDING:
                    queued.add(item.instance)
        self._wake("inbox", queued)

    @at_once
    def notifications(self, *, limit: int = 100, before: int | None = None) -> list[StoredNotification]:
        older = (item for id_, item in reversed(self._items.items()) if id_ < below(before))
        return list(islice(older, limit))

    @at_once
    def announcements(self, refs: Mapping[JobRef, datetime | None]) -> dict[JobRef, list[StoredNotification]]:
        found: dict[JobRef, list[StoredNotification]] = {}
        for item in self._items.values():
            if item.kind in ANNOUNCING_KINDS and (ref := item.ref) in refs and ref is not None:
                found.setdefault(ref, []).append(item)
        return {ref: _chosen(items, refs[ref]) for ref, items in found.items()}

    def _is_announced(self, ref: JobRef, *, but: int) -> bool:
        """Return whether the job has another success or failure notification."""
        return any(
            item.ref == ref and item.kind in ANNOUNCING_KINDS and item.id != but for item in self._items.values()
        )

    @at_once
    def due(self, instance: str, *, but: Collection[str] = (), limit: int = 100) -> list[Delivery]:
        now = utcnow()
        return [each for each in self._to_send(instance, but) if each.due_at <= now][:limit]

    @at_once
    def next_due(self, instance: str, *, but: Collection[str] = ()) -> datetime | None:
        return next((each.due_at for each in self._to_send(instance, but)), None)

    def _to_send(self, instance: str, but: Collection[str] = ()) -> list[Delivery]:
        """Return deliveries due now or later to targets other than ``but``, the longest due first."""
        due = [
            each
            for each in self._current(self._deliveries.values())
            if each.state is DeliveryState.DUE and each.notification.instance == instance and each.target not in but
        ]
        return sorted(due, key=lambda each: (each.due_at, each.id))

    @at_once
    def attempted(self, attempts: Sequence[Attempt]) -> None:
        again = set()
        for attempt in attempts:
            if (known := self._deliveries.get(attempt.delivery)) is not None:
                self._deliveries[known.id] = replace(
                    known, state=attempt.state, attempts=known.attempts + 1, due_at=attempt.due_at, fault=attempt.fault
                )
                if attempt.state is DeliveryState.DUE:
                    again.add(known.notification.instance)
        self._wake("deliveries", again)

    @at_once
    def deliveries(
        self, *, limit: int = 100, before: int | None = None, state: DeliveryState | None = None
    ) -> list[Delivery]:
        older = (each for each in self._in_state(state) if each.id < below(before))
        return list(islice(self._current(older), limit))

    def _in_state(self, state: DeliveryState | None) -> Iterator[Delivery]:
        """Return deliveries, newest first."""
        return (each for each in reversed(self._deliveries.values()) if state in (None, each.state))

    def _prune_notifications(self, before: datetime) -> int:
        """Remove old notifications and return their number."""
        undelivered = {each.notification.id for each in self._in_state(DeliveryState.DUE)}
        old = [
            item.id
            for item in self._items.values()
            if item.outcome is not Outcome.PENDING
            and (item.settled_at or item.received_at) < before
            and item.id not in undelivered
        ]
        self._remove(old)
        return len(old)

    def _remove(self, ids: Collection[int]) -> None:
        removed = set(ids)
        for id_ in removed:
            item = self._items.pop(id_)
            self._bytes -= len(item.body)
            del self._digests[digest_of(item)]
        if removed:
            for delivery in [each for each in self._deliveries.values() if each.notification.id in removed]:
                del self._deliveries[delivery.id]

    def _current(self, deliveries: Iterable[Delivery]) -> Iterator[Delivery]:
        # The notification's outcome may have changed.
        return (replace(each, notification=self._items[each.notification.id]) for each in deliveries)


def _chosen(items: list[StoredNotification], since: datetime | None) -> list[StoredNotification]:
    later = [item for item in items if since is not None and item.received_at >= since]
    chosen = (*items[:ANNOUNCEMENTS], *items[-ANNOUNCEMENTS:], *later[:ANNOUNCEMENTS])
    return sorted({item.id: item for item in chosen}.values(), key=lambda item: item.id)

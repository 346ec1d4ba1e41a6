"""The notifications and deliveries of a memory store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice

from airbyte_events.events import JobRef
from airbyte_events.store.base import ANNOUNCEMENTS, ANNOUNCING_KINDS
from airbyte_events.store.records import (
    REPEATED_WITHIN,
    Attempt,
    Delivery,
    DeliveryState,
    Outcome,
    Receipt,
    StoredNotification,
    digest_before,
    digest_of,
)

MAX_BYTES = 128 * 1024 * 1024
"""Maximum size of all bodies together."""


class MemoryInbox:
    """An inbox of at most ``capacity`` notifications and :data:`MAX_BYTES`. The oldest are removed, with deliveries."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._bytes = 0
        self._items: OrderedDict[int, StoredNotification] = OrderedDict()
        self._digests: dict[bytes, int] = {}
        self._deliveries: OrderedDict[int, Delivery] = OrderedDict()
        self._last_notification = 0
        self._last_delivery = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: StoredNotification, targets: Collection[str] = ()) -> Receipt:
        """Store a notification with a new id, and its deliveries."""
        known = self._find_same(item)
        if known is not None:
            return Receipt(id=known, duplicate=True)
        self._last_notification += 1
        item = replace(item, id=self._last_notification)
        self._digests[_digest(item)] = item.id
        self._items[item.id] = item
        self._bytes += len(item.body)
        for target in dict.fromkeys(targets):
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
        return Receipt(id=item.id, duplicate=False)

    def _find_same(self, item: StoredNotification) -> int | None:
        identity = item.instance, item.body, item.job_id, item.received_at
        before = self._digests.get(digest_before(*identity) or b"")
        if before is not None and self._items[before].received_at > item.received_at - REPEATED_WITHIN:
            return before
        return self._digests.get(digest_of(*identity))

    def pending(self, instance: str | None = None) -> Iterator[StoredNotification]:
        return (
            item
            for item in self._items.values()
            if item.outcome is Outcome.PENDING and instance in (None, item.instance)
        )

    def settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> set[str]:
        """Store outcomes and return the instances with notifications queued again."""
        queued = set()
        for id_, outcome in outcomes.items():
            if (item := self._items.get(id_)) is not None:
                done = None if outcome is Outcome.PENDING else settled_at
                self._items[id_] = replace(item, outcome=outcome, settled_at=done)
                if outcome is Outcome.PENDING:
                    queued.add(item.instance)
        return queued

    def newest(self, limit: int | None = None, before: int | None = None) -> list[StoredNotification]:
        older = (item for id_, item in reversed(self._items.items()) if before is None or id_ < before)
        return list(islice(older, limit))

    def announcements(self, refs: Mapping[JobRef, datetime | None]) -> dict[JobRef, list[StoredNotification]]:
        found: dict[JobRef, list[StoredNotification]] = {}
        for item in self._items.values():
            if item.job_id is not None and item.kind in ANNOUNCING_KINDS:
                ref = JobRef(item.instance, item.job_id)
                if ref in refs:
                    found.setdefault(ref, []).append(item)
        return {ref: _chosen(items, refs[ref]) for ref, items in found.items()}

    def is_announced(self, ref: JobRef, *, but: int) -> bool:
        """Return whether the job has another success or failure notification."""
        return any(
            item.ref == ref and item.kind in ANNOUNCING_KINDS and item.id != but for item in self._items.values()
        )

    def due(self, instance: str, but: Collection[str] = ()) -> list[Delivery]:
        """Return deliveries due now or later to targets other than ``but``, the longest due first."""
        due = [
            each
            for each in self._current(self._deliveries.values())
            if each.state is DeliveryState.DUE and each.notification.instance == instance and each.target not in but
        ]
        return sorted(due, key=lambda each: (each.due_at, each.id))

    def attempted(self, attempts: Sequence[Attempt]) -> set[str]:
        """Store results and return the instances with deliveries to retry."""
        again = set()
        for attempt in attempts:
            if (known := self._deliveries.get(attempt.delivery)) is not None:
                self._deliveries[known.id] = replace(
                    known, state=attempt.state, attempts=known.attempts + 1, due_at=attempt.due_at, fault=attempt.fault
                )
                if attempt.state is DeliveryState.DUE:
                    again.add(known.notification.instance)
        return again

    def deliveries(self, state: DeliveryState | None = None, before: int | None = None) -> Iterator[Delivery]:
        """Return deliveries, newest first."""
        return self._current(
            each
            for id_, each in reversed(self._deliveries.items())
            if (before is None or id_ < before) and state in (None, each.state)
        )

    def prune(self, before: datetime) -> int:
        """Remove old notifications and return their number."""
        undelivered = {each.notification.id for each in self.deliveries(DeliveryState.DUE)}
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
            del self._digests[_digest(item)]
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


def _digest(item: StoredNotification) -> bytes:
    return digest_of(item.instance, item.body, item.job_id, item.received_at)

"""Copy a store to another, empty one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from airbyte_events._utils.times import format_time
from airbyte_events.events import WHOLE_LOG, JobEvent
from airbyte_events.store.base import MovableStore
from airbyte_events.store.records import Delivery, StoredNotification, digest_of

_Row = dict[str, object]

PAGE = 1_000
"""Rows per read and write."""

NOT_EMPTY = "the store is not empty: something was stored in it before; name a new one"

OWN_VALUES = frozenset({"epoch", "checked_by", "room", "restoring", "place"})
"""The keys of values that are not copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows that the target stores unchanged, with their sequences and ids."""

    events: Sequence[JobEvent] = ()
    states: Sequence[JobEvent] = ()
    notifications: Sequence[StoredNotification] = ()
    deliveries: Sequence[Delivery] = ()
    values: Mapping[str, str] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        return {
            "events": len(self.events),
            "jobs": len(self.states),
            "notifications": len(self.notifications),
            "deliveries": len(self.deliveries),
            "values": len(self.values),
        }

    def inserts(self, schema: str, place: str, without: Collection[str] = ()) -> Iterator[tuple[str, list[_Row]]]:
        """Return the statements that store the rows, each with its values by column.

        :param place: that of a value, ``:{}`` with the column's name in it.
        :param without: the columns that the target does not have.
        """
        for table, rows in self._rows().items():
            if rows:
                columns = [column for column in rows[0] if column not in without]
                places = ", ".join(map(place.format, columns))
                # Rows with the same key hold the same state.
                into = f"{schema}.{table} ({', '.join(columns)})"
                yield f"INSERT INTO {into} VALUES ({places}) ON CONFLICT DO NOTHING", rows

    def _rows(self) -> dict[str, list[_Row]]:
        """Return the rows of each table, by column, in the order to insert them."""
        return {
            "events": [_row(event, observed_at=format_time(event.observed_at)) for event in self.events],
            "jobs": [_row(state, terminal=state.terminal, revision=0) for state in self.states],
            "notifications": [
                {
                    **{name: getattr(item, name) for name in ("id", "instance", "kind", "job_id", "body")},
                    "received_at": format_time(item.received_at),
                    "digest": digest_of(item),
                    "outcome": item.outcome.value,
                    "settled_at": format_time(item.settled_at),
                }
                for item in self.notifications
            ],
            "deliveries": [
                {
                    **{name: getattr(item, name) for name in ("id", "target", "attempts", "fault")},
                    "due_at": format_time(item.due_at),
                    "notification": item.notification.id,
                    "instance": item.notification.instance,
                    "state": item.state.value,
                }
                for item in self.deliveries
            ],
            "meta": [{"key": key, "value": value} for key, value in self.values.items()],
        }


def _row(event: JobEvent, **more: object) -> _Row:
    return {
        "sequence": event.sequence,
        "instance": event.ref.instance,
        "job_id": event.ref.job_id,
        "connection_id": event.connection_id,
        "status": event.status.value,
        "data": json.dumps(event.data()),
        **more,
    }


async def migrate(source: MovableStore, target: MovableStore, advance: Callable[[int], object]) -> Counter[str]:
    """Fill an empty store from another, which is unchanged. Neither may be used meanwhile.

    Unreadable rows are skipped, logged and counted in the source's ``unreadable``.

    :param advance: called with the number of rows copied since the last call.
    :raises StoreError: if the target is not empty, or a store fails; then the target is empty.
    """
    count: Counter[str] = Counter()

    async def counted() -> AsyncGenerator[Batch, None]:
        async with aclosing(_batches(source)) as batches:
            async for batch in batches:
                yield batch
                count.update(batch.counts())
                advance(sum(batch.counts().values()))

    async with aclosing(counted()) as batches:
        await target.fill(source.epoch, await source.head(), batches)
    return count


async def _batches(source: MovableStore) -> AsyncGenerator[Batch, None]:
    async with aclosing(_events(source)) as pages:
        async for events in pages:
            yield Batch(events=events)
    before: int | None = None
    while states := await source.jobs(limit=PAGE, before=before, wanted=WHOLE_LOG):
        yield Batch(states=states)
        before = states[-1].sequence
    if source.unreadable.get("jobs"):
        # An unreadable state is replaced by the newest event, so that the job completes only once.
        async with aclosing(_events(source)) as pages:
            async for events in pages:
                yield Batch(states=list((await source.states({event.ref for event in events})).values()))
    before = None
    while notifications := await source.notifications(limit=PAGE, before=before, outgoing=True):
        yield Batch(notifications=notifications)
        before = notifications[-1].id
    before = None
    while deliveries := await source.deliveries(limit=PAGE, before=before):
        yield Batch(deliveries=deliveries)
        before = deliveries[-1].id
    yield Batch(values={key: value for key, value in (await source.values()).items() if key not in OWN_VALUES})


async def _events(source: MovableStore) -> AsyncGenerator[Sequence[JobEvent], None]:
    stats = await source.stats()
    position = stats.first - 1 if stats.first else stats.head
    while position < stats.head:
        page = await source.read(position, limit=PAGE, wanted=WHOLE_LOG)
        yield page.events
        position = page.position

"""The queries that are the same in SQLite and PostgreSQL."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TypeVar

from airbyte_events._utils.times import utcnow
from airbyte_events.events import EVERYTHING, EventFilter, JobEvent, JobRef, JobStatus
from airbyte_events.store.base import COMPLETION, below
from airbyte_events.store.local import LocalState
from airbyte_events.store.records import Attempt, Delivery, DeliveryState, Queues, StoredNotification, StoreStats
from airbyte_events.store.rows import DELIVERY, EVENT, NOTIFICATION, Row, delivery_of, moment_of, notification_of

T = TypeVar("T")

UNREADABLE_FAULT = "its row in the store can't be read"
"""The fault of a delivery that was given up for that."""

_TERMINAL = ", ".join(f"'{status.value}'" for status in JobStatus if status.terminal)


class Queries(LocalState):
    """A store whose tables are in a SQL database.

    In the statements, ``?`` is the place of a value.
    """

    _s: str
    """The name of the tables' schema."""
    _head: str
    """The expression of the log's head."""

    @abstractmethod
    async def _query(self, sql: str, values: Sequence[object], read: Callable[[list[Row]], T]) -> T:
        """Return what ``read`` makes of the rows. It may be called in a worker thread."""

    @staticmethod
    @abstractmethod
    def _among(column: str, values: Collection[object]) -> tuple[str, list[object]]:
        """Return a condition that the column has one of these values, and the values of its places."""

    @abstractmethod
    async def attempted(self, attempts: Sequence[Attempt]) -> None: ...

    async def recall(self, key: str) -> str | None:
        sql = f"SELECT value FROM {self._s}.meta WHERE key = ?"
        return await self._query(sql, [key], lambda rows: str(rows[0][0]) if rows else None)

    async def values(self) -> dict[str, str]:
        sql = f"SELECT key, value FROM {self._s}.meta"
        return await self._query(sql, [], lambda rows: {key: str(value) for key, value in rows})

    async def head(self) -> int:
        return await self._query(f"SELECT {self._head}", [], lambda rows: int(rows[0][0]))

    async def jobs(
        self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING
    ) -> list[JobEvent]:
        where, values = self._criteria(wanted)
        sql = f"SELECT {EVENT} FROM {self._s}.jobs e WHERE sequence < ?{where} ORDER BY sequence DESC LIMIT ?"
        return await self._newest("jobs", sql, before, values, limit, self._event)

    async def history(self, ref: JobRef) -> list[JobEvent]:
        sql = f"SELECT {EVENT} FROM {self._s}.events e WHERE instance = ? AND job_id = ? ORDER BY sequence"
        return await self._query(sql, ref, lambda rows: list(self._events(rows, "events")))

    def _criteria(self, wanted: EventFilter) -> tuple[str, list[object]]:
        """Return a condition that follows others, and its values."""
        branches, values = [], list[object]()
        for sign, choices in wanted.branches():
            # The plus keeps SQLite from using an index by job for what nearly all rows match.
            conditions = [f"+job_id {sign} 0"]
            for column, chosen in choices.items():
                condition, of_column = self._among(column, chosen)
                conditions.append(condition)
                values += of_column
            branches.append(f"({' AND '.join(conditions)})")
        return f" AND ({' OR '.join(branches)})", values

    async def notifications(
        self, *, limit: int = 100, before: int | None = None, outgoing: bool = False
    ) -> list[StoredNotification]:
        sql = (
            f"SELECT {NOTIFICATION} FROM {self._s}.notifications n WHERE id < ? AND (kind <> ? OR ?)"
            " ORDER BY id DESC LIMIT ?"
        )
        return await self._newest("notifications", sql, before, [COMPLETION, outgoing], limit, notification_of)

    async def deliveries(
        self, *, limit: int = 100, before: int | None = None, state: DeliveryState | None = None
    ) -> list[Delivery]:
        # A literal, so that the partial indexes apply.
        matches = "" if state is None else f" AND d.state = '{state.value}'"
        sql = f"{self._select_deliveries} WHERE d.id < ?{matches} ORDER BY d.id DESC LIMIT ?"
        return await self._newest("deliveries", sql, before, [], limit, delivery_of)

    async def due(
        self, instance: str, *, to: str | None = None, but: Collection[str] = (), limit: int = 100, skip: int = 0
    ) -> list[Delivery]:
        others, names = self._among("d.target", but)
        sql = (
            f"{self._select_deliveries} WHERE d.state = 'due' AND d.instance = ? AND d.due_at <= now()"
            f" AND d.target = coalesce(?, d.target) AND NOT {others} ORDER BY d.due_at, d.id LIMIT ? OFFSET ?"
        )
        while True:
            unreadable: list[int] = []
            found = await self._query(
                sql,
                [instance, to, *names, limit, skip],
                lambda rows: list(self._unreadable.sift(rows, "deliveries", delivery_of, unreadable)),  # noqa: B023
            )
            if unreadable:
                dead, now = DeliveryState.DEAD, utcnow()
                await self.attempted(
                    [
                        Attempt(delivery=id_, state=dead, due_at=now, fault=UNREADABLE_FAULT, sent=False)
                        for id_ in unreadable
                    ]
                )
            if found or not unreadable:
                return found

    @property
    def _select_deliveries(self) -> str:
        return (
            f"SELECT {DELIVERY} FROM {self._s}.deliveries d"
            f" LEFT JOIN {self._s}.notifications n ON n.id = d.notification"
        )

    async def next_due(self, instance: str, *, to: str | None = None, but: Collection[str] = ()) -> datetime | None:
        others, names = self._among("target", but)
        sql = (
            f"SELECT min(due_at) FROM {self._s}.deliveries WHERE state = 'due' AND instance = ?"
            f" AND target = coalesce(?, target) AND NOT {others}"
        )
        return await self._query(sql, [instance, to, *names], lambda rows: moment_of(rows[0][0]))

    async def watched(self, instance: str) -> dict[int, datetime]:
        return await self._query(
            f"SELECT job_id, since FROM {self._watches}",
            [instance],
            lambda rows: {job_id: moment_of(since) or utcnow() for job_id, since in rows if type(job_id) is int},
        )

    async def queues(self, instance: str) -> Queues:
        sql = (
            f"SELECT (SELECT count(*) FROM {self._watches}), (SELECT received_at FROM {self._s}.notifications"
            " WHERE outcome = 'pending' AND instance = ? ORDER BY id LIMIT 1),"
            f" (SELECT min(due_at) FROM {self._s}.deliveries WHERE state = 'due' AND instance = ?)"
        )
        watched, pending, due = await self._query(sql, [instance] * 3, lambda rows: rows[0])
        return Queues(watched=watched, pending_since=moment_of(pending), due_since=moment_of(due))

    @property
    def _watches(self) -> str:
        # A job that completed while its watch was written may have a row.
        return (
            f"{self._s}.watches w WHERE instance = ? AND until > now() AND NOT EXISTS (SELECT 1 FROM {self._s}.jobs j"
            f" WHERE j.instance = w.instance AND j.job_id = w.job_id AND j.status IN ({_TERMINAL}))"
        )

    async def _stats(self, size: int, estimates: Mapping[str, int] = MappingProxyType({})) -> StoreStats:
        """Return the numbers of rows.

        :param size: in bytes.
        :param estimates: the numbers of rows in tables that are not counted.
        """
        counts = [
            estimates.get(rows, f"(SELECT count(*) FROM {self._s}.{rows})")
            for rows in (
                "jobs",
                "notifications",
                "notifications WHERE outcome = 'pending'",
                "deliveries WHERE state = 'due'",
                "deliveries WHERE state = 'dead'",
            )
        ]
        sql = f"SELECT {self._head}, (SELECT min(sequence) FROM {self._s}.events), {', '.join(map(str, counts))}"
        head, first, jobs, notifications, pending, due, dead = await self._query(sql, [], lambda rows: rows[0])
        return StoreStats(
            first=first or 0,
            head=head,
            events=0 if first is None else head - first + 1,
            jobs=jobs,
            notifications=notifications,
            pending=pending,
            due=due,
            dead=dead,
            bytes=size,
        )

    async def _newest(
        self,
        table: str,
        sql: str,
        before: int | None,
        values: Sequence[object],
        limit: int,
        read: Callable[[Row], T | None],
    ) -> list[T]:
        """Return the readable rows of a query, as many as the limit if there are.

        :param sql: ordered by its first column, descending. Its first value is the upper bound of this column, its last
            one a limit.
        """
        found: list[T] = []
        bound = below(before)
        while (left := limit - len(found)) > 0:
            rows, readable = await self._query(
                sql, [bound, *values, left], lambda rows: (rows, list(self._unreadable.sift(rows, table, read)))
            )
            found += readable
            if len(rows) < left:
                break
            bound = rows[-1][0]
        return found

"""A store in one SQLite file: durable, for one process."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from airbyte_events.errors import CursorExpired, StoreError
from airbyte_events.events import (
    EVERYTHING,
    FOLLOWED_BY,
    Cursor,
    EventFilter,
    JobEvent,
    JobRef,
    Verdict,
    annotate,
    format_time,
    parse_time,
    reconcile,
    succeed,
)
from airbyte_events.store import ANNOUNCING_KINDS, EventStore, LogPage, Outcome, Receipt, StoredNotification
from airbyte_events.store.sqlite_file import SQLiteFile

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class SQLiteStore(EventStore):
    """:param path: the database file; its folder is made. A ``.lock`` file beside it keeps other processes out."""

    def __init__(self, path: Path) -> None:
        self._file = SQLiteFile(path)
        self._head = 0
        self._appended = anyio.Event()

    async def __aenter__(self) -> Self:
        await self._file.__aenter__()
        try:
            self.epoch, self._head = await self._file.transact(
                lambda connection: (_epoch(connection), _head(connection))
            )
        except BaseException:
            await self._file.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._file.__aexit__(exc_type, exc, tb)

    async def append(self, observed: Sequence[JobEvent]) -> list[Verdict]:
        def run(connection: sqlite3.Connection) -> tuple[list[Verdict], int]:
            verdicts = [self._append_one(connection, event) for event in observed]
            return verdicts, _head(connection)

        verdicts, _ = await self._file.transact(run, self._advance)
        return verdicts

    def _advance(self, appended: tuple[list[Verdict], int]) -> None:
        _, head = appended
        if head > self._head:
            self._head = head
            self._appended.set()
            self._appended = anyio.Event()

    def _append_one(self, connection: sqlite3.Connection, observed: JobEvent) -> Verdict:
        row = connection.execute("SELECT status FROM jobs WHERE instance = ? AND job_id = ?", observed.ref).fetchone()
        if row is not None and row[0] == observed.status.value:
            return Verdict.REPEAT  # the most frequent case, without reading all that is known of the job
        known = self._state(connection, observed.ref)
        verdict = reconcile(known, observed)
        if verdict is Verdict.NEW:
            stored = succeed(known, observed, Cursor(self.epoch, 0))
            row = (*stored.ref, stored.connection_id, stored.status.value, json.dumps(stored.data()))
            sequence = connection.execute(
                "INSERT INTO events (instance, job_id, connection_id, status, data) VALUES (?, ?, ?, ?, ?)", row
            ).lastrowid
            connection.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?)", (*row[:4], sequence, row[4]))
        return verdict

    async def annotate(self, states: Sequence[JobEvent]) -> None:
        def run(connection: sqlite3.Connection) -> None:
            for state in states:
                known = self._state(connection, state.ref)
                if known is not None and known.status is state.status:
                    connection.execute(
                        "UPDATE jobs SET data = ? WHERE instance = ? AND job_id = ?",
                        (json.dumps(annotate(known, state).data()), *state.ref),
                    )

        await self._file.transact(run)

    async def head(self) -> int:
        return await self._file.transact(_head)

    async def read(self, after: int, *, limit: int = 500, wanted: EventFilter = EVERYTHING) -> LogPage:
        def run(connection: sqlite3.Connection) -> LogPage:
            head = _head(connection)
            first = connection.execute("SELECT min(sequence) FROM events").fetchone()[0]
            forgotten = head if first is None else first - 1
            if not forgotten <= after <= head:
                raise CursorExpired(f"the log keeps what follows {forgotten} up to {head}, not {after}")
            where, values = _criteria(wanted)
            rows = connection.execute(
                f"SELECT sequence, data FROM events WHERE sequence > ?{where} ORDER BY sequence LIMIT ?",
                (after, *values, limit),
            ).fetchall()
            found = [self._event(*row) for row in rows]
            return LogPage(events=found, position=rows[-1][0] if len(rows) == limit else head)

        return await self._file.transact(run)

    async def changed(self, after: int) -> None:
        while self._head <= after:
            await self._appended.wait()

    async def states(self, refs: Collection[JobRef]) -> dict[JobRef, JobEvent]:
        def run(connection: sqlite3.Connection) -> dict[JobRef, JobEvent]:
            found = ((ref, self._state(connection, ref)) for ref in refs)
            return {ref: state for ref, state in found if state is not None}

        return await self._file.transact(run)

    async def jobs(
        self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING
    ) -> list[JobEvent]:
        def run(connection: sqlite3.Connection) -> list[JobEvent]:
            where, values = _criteria(wanted)
            rows = connection.execute(
                f"SELECT sequence, data FROM jobs WHERE sequence < ?{where} ORDER BY sequence DESC LIMIT ?",
                (2**62 if before is None else before, *values, limit),
            )
            return [self._event(*row) for row in rows]

        return await self._file.transact(run)

    async def history(self, ref: JobRef) -> list[JobEvent]:
        def run(connection: sqlite3.Connection) -> list[JobEvent]:
            rows = connection.execute(
                "SELECT sequence, data FROM events WHERE instance = ? AND job_id = ? ORDER BY sequence", ref
            )
            return [self._event(*row) for row in rows]

        return await self._file.transact(run)

    async def receive(
        self, *, instance: str, body: bytes, kind: str, job_id: int | None, outcome: Outcome, received_at: datetime
    ) -> Receipt:
        digest = hashlib.sha256(instance.encode() + b"\0" + body).digest()
        row = (instance, digest, format_time(received_at), kind, job_id, body, outcome.value)

        def run(connection: sqlite3.Connection) -> Receipt:
            inserted = connection.execute(
                "INSERT INTO notifications (instance, digest, received_at, kind, job_id, body, outcome)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING RETURNING id",
                row,
            ).fetchone()
            if inserted is not None:
                return Receipt(id=inserted[0], duplicate=False)
            first = connection.execute("SELECT id FROM notifications WHERE digest = ?", (digest,)).fetchone()
            return Receipt(id=first[0], duplicate=True)

        return await self._file.transact(run)

    async def pending(self, instance: str, *, limit: int = 500) -> list[StoredNotification]:
        return await self._inbox("WHERE outcome = 'pending' AND instance = ? ORDER BY id LIMIT ?", instance, limit)

    async def settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> None:
        at = format_time(settled_at)
        rows = [(outcome.value, None if outcome is Outcome.PENDING else at, id_) for id_, outcome in outcomes.items()]
        await self._file.transact(
            lambda connection: connection.executemany(
                "UPDATE notifications SET outcome = ?, settled_at = ? WHERE id = ?", rows
            )
        )

    async def notifications(self, *, limit: int = 100, before: int | None = None) -> list[StoredNotification]:
        return await self._inbox("WHERE id < ? ORDER BY id DESC LIMIT ?", 2**62 if before is None else before, limit)

    async def announcements(self, refs: Collection[JobRef]) -> dict[JobRef, StoredNotification]:
        def run(connection: sqlite3.Connection) -> dict[JobRef, StoredNotification]:
            found = {}
            for ref in refs:
                row = connection.execute(
                    f"{_SELECT_NOTIFICATION} WHERE instance = ? AND job_id = ? AND kind IN (?, ?)"
                    " ORDER BY id DESC LIMIT 1",
                    (*ref, *ANNOUNCING_KINDS),
                ).fetchone()
                if row is not None:
                    found[ref] = _notification(row)
            return found

        return await self._file.transact(run)

    async def recall(self, key: str) -> str | None:
        def run(connection: sqlite3.Connection) -> str | None:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return None if row is None else str(row[0])

        return await self._file.transact(run)

    async def remember(self, key: str, value: str) -> None:
        await self._file.transact(
            lambda connection: connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
        )

    async def check(self) -> None:
        await self.remember("checked_by", secrets.token_hex(4))

    async def _inbox(self, condition: str, *values: object) -> list[StoredNotification]:
        return await self._file.transact(
            lambda connection: [
                _notification(row) for row in connection.execute(f"{_SELECT_NOTIFICATION} {condition}", values)
            ]
        )

    def _event(self, sequence: int, data: str) -> JobEvent:
        return JobEvent.from_data(json.loads(data), Cursor(self.epoch, sequence))

    def _state(self, connection: sqlite3.Connection, ref: JobRef) -> JobEvent | None:
        row = connection.execute("SELECT sequence, data FROM jobs WHERE instance = ? AND job_id = ?", ref).fetchone()
        return None if row is None else self._event(*row)


_SELECT_NOTIFICATION = "SELECT id, instance, received_at, kind, job_id, body, outcome, settled_at FROM notifications"


def _notification(row: tuple[Any, ...]) -> StoredNotification:
    received_at = parse_time(row[2])
    if received_at is None:
        raise StoreError("a stored notification has no time")
    return StoredNotification(
        id=row[0],
        instance=row[1],
        received_at=received_at,
        kind=row[3],
        job_id=row[4],
        body=row[5],
        outcome=Outcome(row[6]),
        settled_at=parse_time(row[7]),
    )


def _criteria(wanted: EventFilter) -> tuple[str, list[object]]:
    terminal = {status.value for status, followers in FOLLOWED_BY.items() if not followers}
    statuses = {status.value for status in wanted.statuses}
    if wanted.terminal is not None:
        kept = terminal if wanted.terminal else {status.value for status in FOLLOWED_BY} - terminal
        # Criteria that contradict each other leave a status that no row has.
        statuses = (statuses & kept if statuses else kept) or {""}
    text = ""
    values: list[object] = []
    for column, choices in (
        ("instance", wanted.instances),
        ("job_id", wanted.job_ids),
        ("connection_id", wanted.connection_ids),
        ("status", statuses),
    ):
        if choices:
            text += f" AND {column} IN ({', '.join('?' * len(choices))})"
            values += choices
    return text, values


def _epoch(connection: sqlite3.Connection) -> str:
    return str(connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0])


def _head(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return 0 if row is None else int(row[0])

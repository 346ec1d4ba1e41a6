"""The log and latest states of a SQLite store."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.events import Cursor, EventFilter, JobEvent, JobRef, JobStatus
from airbyte_events.store.base import EventLog
from airbyte_events.store.identity import LOOK_BACK, REPLACED, KnownLog, LogReplaced, Tail, ensure_kept, mark_of
from airbyte_events.store.reconcile import annotate
from airbyte_events.store.records import Appended, Lease, LogPage, Settle, States
from airbyte_events.store.rows import EVENT, MAX_CLOCK_SKEW, PRUNED_AT_ONCE, Row, event_of, moment_of
from airbyte_events.store.sqlite.connection import SQLiteFile
from airbyte_events.store.sqlite.inbox import settle_all
from airbyte_events.store.sqlite.transactions import HEAD, SQLiteTransactions, transaction, unwatch

logger = logging.getLogger(__name__)

_COLUMNS = "sequence, instance, job_id, connection_id, status, data"

TERMINAL = frozenset(status.value for status in JobStatus if status.terminal)


def head(connection: sqlite3.Connection) -> int:
    row = connection.execute(HEAD).fetchone()
    return 0 if row is None else int(row[0])


def first(connection: sqlite3.Connection) -> int | None:
    """Return the oldest retained sequence."""
    row = connection.execute("SELECT min(sequence) FROM events").fetchone()
    return None if row[0] is None else int(row[0])


def _epoch(connection: sqlite3.Connection) -> str:
    """Return the log's epoch; empty if it is missing."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    return str(row[0]) if row is not None and re.fullmatch("[0-9a-f]{1,32}", str(row[0])) else ""


def _found(connection: sqlite3.Connection) -> KnownLog:
    return KnownLog(_epoch(connection), _newest(connection))


def _newest(connection: sqlite3.Connection) -> Tail:
    newest = head(connection)
    return Tail(newest, _mark(connection, newest))


def _is_replaced(connection: sqlite3.Connection, log: KnownLog) -> bool:
    """Return whether the log has another epoch or lost events."""
    # Before the first read, which decides what this transaction sees: another thread advances it with each commit.
    tail = log.tail
    if _epoch(connection) != log.epoch:
        return True
    return tail.is_lost(head(connection), first(connection), _mark(connection, tail.sequence))


def _renew_epoch(connection: sqlite3.Connection) -> None:
    """Assign a new epoch and rewind polling by :data:`LOOK_BACK`."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (secrets.token_hex(8),))
    polled = connection.execute("SELECT key, value FROM meta WHERE substr(key, 1, 10) = 'looked_at/'").fetchall()
    for key, value in polled:
        moment = moment_of(value)
        if moment is not None:
            earlier = format_time(moment - LOOK_BACK)
            connection.execute("UPDATE meta SET value = ? WHERE key = ?", (earlier, key))


def _mark(connection: sqlite3.Connection, sequence: int) -> str | None:
    try:
        row = connection.execute("SELECT data FROM events WHERE sequence = ?", (sequence,)).fetchone()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return "a page of the file is damaged"
    return None if row is None else mark_of(row[0])


class SQLiteLog(SQLiteTransactions, EventLog):
    """The log and latest states of a SQLite store."""

    _file: SQLiteFile
    _path: Path
    _read_only: bool

    def _open(self, connection: sqlite3.Connection) -> KnownLog:
        if not _epoch(connection) and not self._read_only:
            logger.error("the log's epoch was missing, so it has a new one: store=%s", self._path)
            _renew_epoch(connection)
        return _found(connection)

    async def append(
        self,
        observed: Sequence[JobEvent],
        *,
        lease: Lease | None = None,
        known: States | None = None,
        settle: Settle | None = None,
    ) -> Appended:
        log = self._log

        def run(connection: sqlite3.Connection) -> Appended:
            self._leases.ensure(lease)
            if _is_replaced(connection, log):
                raise LogReplaced(REPLACED)
            states = self._states(connection, {event.ref for event in observed})
            appended = Appended.after(Cursor(log.epoch, head(connection)), states, observed, settle)
            for each in appended.events:
                row = (each.sequence, *each.ref, each.connection_id, each.status.value, json.dumps(each.data()))
                connection.execute(f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)
                connection.execute(f"INSERT OR REPLACE INTO jobs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)
            unwatch(connection, appended.events)
            settle_all(connection, appended.outcomes, utcnow())
            return appended

        try:
            return await self._file.transact(run, partial(self._advance, log))
        except LogReplaced:
            await self._renew()
            raise

    async def _renew(self) -> None:
        """Assign a new epoch if the log lost events."""
        log = self._log

        def run(connection: sqlite3.Connection) -> KnownLog | None:
            if not _is_replaced(connection, log):
                log.advance(_newest(connection))
                return None
            if _epoch(connection) in ("", log.epoch):
                _renew_epoch(connection)
            return _found(connection)

        await self._file.transact(run, self._replace)

    def _replace(self, log: KnownLog | None) -> None:
        if log is None or log.epoch == self.epoch:
            return
        logger.error("the log %s has lost events: it has a new epoch, and clients read the states again", self._path)
        self._continue_with(log)

    def _continue_with(self, log: KnownLog) -> None:
        self._log = log
        # So that the next holders read the log anew.
        self._leases.revoke()
        self._tail.restart(log.tail.sequence)
        self._wakeups.wake()

    @transaction
    def annotate(self, connection: sqlite3.Connection, states: Sequence[JobEvent]) -> None:
        for report in states:
            known = self._state(connection, report.ref)
            if known is not None and (state := annotate(known, report)) is not known:
                sql = "UPDATE jobs SET data = ? WHERE instance = ? AND job_id = ?"
                connection.execute(sql, (json.dumps(state.data()), *report.ref))

    async def _read(self, log: KnownLog, after: int, limit: int, size: int, wanted: EventFilter) -> LogPage:
        return await self._file.read(lambda connection: self._page(connection, log, after, limit, size, wanted))

    def _page(
        self, connection: sqlite3.Connection, log: KnownLog, after: int, limit: int, size: int, wanted: EventFilter
    ) -> LogPage:
        if _is_replaced(connection, log):
            raise LogReplaced(REPLACED)
        log.advance(_newest(connection))
        newest = head(connection)
        ensure_kept(after, first(connection), newest)
        where, values = self._criteria(wanted)
        rows = connection.execute(
            f"SELECT {EVENT} FROM events e WHERE sequence > ?{where} ORDER BY sequence LIMIT ?", (after, *values, limit)
        )
        page: list[Row] = []
        for row in rows:
            page.append(row)
            size -= len(str(row[-1]))
            if size <= 0:
                break
        rows.close()
        is_full = len(page) == limit or size <= 0
        return LogPage(
            events=list(self._events(page, "events", log.epoch)), position=page[-1][0] if is_full else newest
        )

    @transaction
    def states(self, connection: sqlite3.Connection, refs: Collection[JobRef]) -> States:
        return self._states(connection, refs)

    def _states(self, connection: sqlite3.Connection, refs: Collection[JobRef]) -> States:
        found = ((ref, self._state(connection, ref)) for ref in refs)
        return States({ref: state for ref, state in found if state is not None}, refs=refs)

    def _state(self, connection: sqlite3.Connection, ref: JobRef) -> JobEvent | None:
        """Return a job's latest state. The newest readable event replaces an unreadable state."""
        sql = f"SELECT {EVENT} FROM jobs e WHERE instance = ? AND job_id = ?"
        rows = connection.execute(sql, ref).fetchall()
        state = next(self._events(rows, "jobs"), None)
        if rows and state is None:
            sql = f"SELECT {EVENT} FROM events e WHERE instance = ? AND job_id = ? ORDER BY sequence DESC"
            state = next(self._events(connection.execute(sql, ref), "events"), None)
        return state

    @transaction
    def _prune_events(self, connection: sqlite3.Connection, before: datetime, keep: int) -> int:
        """Remove a page of the oldest events, without a gap, and return their number.

        Unreadable events and those with future times are removed with the next old one.
        """
        excess, latest = head(connection) - keep, utcnow() + MAX_CLOCK_SKEW
        removed = last = 0
        rows = connection.execute(f"SELECT {EVENT} FROM events e ORDER BY sequence LIMIT ?", (PRUNED_AT_ONCE,))
        for count, row in enumerate(rows, 1):
            event = None if row[0] <= excess else event_of(row, "")
            if event is not None and before <= event.observed_at <= latest:
                break
            # An event without a valid time is old if a later one is, or if the whole page has none.
            if row[0] <= excess or (event is not None and event.observed_at < before) or count == PRUNED_AT_ONCE:
                removed, last = count, row[0]
        rows.close()
        connection.execute("DELETE FROM events WHERE sequence <= ?", (last,))
        return removed

    def _has_completed(self, connection: sqlite3.Connection, ref: JobRef) -> bool:
        row = connection.execute("SELECT status FROM jobs WHERE instance = ? AND job_id = ?", ref).fetchone()
        return row is not None and row[0] in TERMINAL

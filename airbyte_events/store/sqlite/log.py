"""The event log of a SQLite store, the latest states and the watches of jobs. Functions over its connection."""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.errors import CursorExpired
from airbyte_events.events import Cursor, EventFilter, JobEvent, JobRef, JobStatus
from airbyte_events.store.identity import LOOK_BACK, REPLACED, LogReplaced, Tail, mark_of
from airbyte_events.store.reconcile import NEWS, Verdict, annotate, reconcile, succeed
from airbyte_events.store.records import LogPage, States
from airbyte_events.store.rows import TO_COME, Row, Unreadable, event_of, moment_of

PRUNED_AT_ONCE = 1_000

_EVENT = "sequence, instance, job_id, status, data"

TERMINAL = frozenset(status.value for status in JobStatus if status.terminal)


def epoch(connection: sqlite3.Connection) -> str:
    """The log's identity; empty if it has none any more."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    return str(row[0]) if row is not None and re.fullmatch("[0-9a-f]{1,32}", str(row[0])) else ""


def head(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return 0 if row is None else int(row[0])


def tail(connection: sqlite3.Connection) -> Tail:
    """The newest event."""
    newest = head(connection)
    return Tail(newest, _mark(connection, newest))


def is_replaced(connection: sqlite3.Connection, known_as: str, seen: Tail) -> bool:
    """Whether it is another log than was seen.

    :param known_as: its epoch then.
    :param seen: the newest event that was seen of it.
    """
    if epoch(connection) != known_as:
        return True
    return seen.is_lost(head(connection), first(connection), _mark(connection, seen.sequence))


def rename(connection: sqlite3.Connection) -> None:
    """Give the log a new epoch. What was found lately is looked for again."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (secrets.token_hex(8),))
    marks = connection.execute("SELECT key, value FROM meta WHERE substr(key, 1, 10) = 'looked_at/'").fetchall()
    for key, value in marks:
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


def first(connection: sqlite3.Connection) -> int | None:
    """The oldest sequence that is kept."""
    row = connection.execute("SELECT min(sequence) FROM events").fetchone()
    return None if row[0] is None else int(row[0])


class Log:
    """:param epoch: the log's identity, part of every cursor.
    :param tail: the newest event that was seen.
    :param unreadable: notes rows that can't be read.
    """

    def __init__(self, epoch: str, tail: Tail, unreadable: Unreadable) -> None:
        self.epoch = epoch
        self.tail = tail
        self._unreadable = unreadable

    def see(self, seen: Tail) -> None:
        """This event was seen, too."""
        if seen.sequence > self.tail.sequence:
            self.tail = seen

    def append(self, connection: sqlite3.Connection, observed: JobEvent) -> tuple[Verdict, JobEvent]:
        """Return the verdict, and the job's latest state."""
        known = self.state(connection, observed.ref)
        verdict = reconcile(known, observed)
        if known is not None and verdict not in NEWS:
            return verdict, known
        stored = succeed(known, observed, Cursor(self.epoch, 0))
        row = (*stored.ref, stored.connection_id, stored.status.value, json.dumps(stored.data()))
        sequence = connection.execute(
            "INSERT INTO events (instance, job_id, connection_id, status, data) VALUES (?, ?, ?, ?, ?)", row
        ).lastrowid
        connection.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?)", (*row[:4], sequence, row[4]))
        if stored.terminal:
            connection.execute("DELETE FROM watches WHERE instance = ? AND job_id = ?", stored.ref)
        return verdict, replace(stored, cursor=Cursor(self.epoch, sequence or 0))

    def annotate(self, connection: sqlite3.Connection, told: JobEvent) -> None:
        known = self.state(connection, told.ref)
        if known is not None and (better := annotate(known, told)) is not known:
            connection.execute(
                "UPDATE jobs SET data = ? WHERE instance = ? AND job_id = ?", (json.dumps(better.data()), *told.ref)
            )

    def read(self, connection: sqlite3.Connection, after: int, limit: int, size: int, wanted: EventFilter) -> LogPage:
        """:raises LogReplaced: if it is another log than was seen."""
        if is_replaced(connection, self.epoch, self.tail):
            raise LogReplaced(REPLACED)
        self.see(tail(connection))
        newest, oldest = head(connection), first(connection)
        forgotten = newest if oldest is None else oldest - 1
        if not forgotten <= after <= newest:
            raise CursorExpired(f"the log keeps what follows {forgotten} up to {newest}, not {after}")
        where, values = _criteria(wanted)
        rows = connection.execute(
            f"SELECT {_EVENT} FROM events WHERE sequence > ?{where} ORDER BY sequence LIMIT ?", (after, *values, limit)
        )
        taken: list[Row] = []
        for row in rows:
            taken.append(row)
            size -= len(str(row[-1]))
            if size <= 0:
                break
        rows.close()
        cut = len(taken) == limit or size <= 0
        return LogPage(events=list(self._sift(taken, "events")), position=taken[-1][0] if cut else newest)

    def state(self, connection: sqlite3.Connection, ref: JobRef) -> JobEvent | None:
        """A job's latest state. Where that can't be read its newest event that can is its state."""
        sql = f"SELECT {_EVENT} FROM jobs WHERE instance = ? AND job_id = ?"
        rows = connection.execute(sql, ref).fetchall()
        state = next(self._sift(rows, "jobs"), None)
        if rows and state is None:
            sql = f"SELECT {_EVENT} FROM events WHERE instance = ? AND job_id = ? ORDER BY sequence DESC"
            state = next(self._sift(connection.execute(sql, ref), "events"), None)
        return state

    def states(self, connection: sqlite3.Connection, refs: Collection[JobRef]) -> States:
        found = ((ref, self.state(connection, ref)) for ref in refs)
        return States({ref: state for ref, state in found if state is not None}, refs=refs)

    def jobs(
        self, connection: sqlite3.Connection, limit: int, before: int | None, wanted: EventFilter
    ) -> list[JobEvent]:
        where, values = _criteria(wanted)
        rows = connection.execute(
            f"SELECT {_EVENT} FROM jobs WHERE sequence < ?{where} ORDER BY sequence DESC",
            (2**62 if before is None else before, *values),
        )
        return list(islice(self._sift(rows, "jobs"), limit))

    def history(self, connection: sqlite3.Connection, ref: JobRef) -> list[JobEvent]:
        rows = connection.execute(
            f"SELECT {_EVENT} FROM events WHERE instance = ? AND job_id = ? ORDER BY sequence", ref
        )
        return list(self._sift(rows, "events"))

    def _sift(self, rows: Iterable[Row], table: str) -> Iterator[JobEvent]:
        return self._unreadable.sift(rows, table, lambda row: event_of(row, self.epoch))


def prune(connection: sqlite3.Connection, before: datetime, keep: int) -> int:
    """A step of pruning: from the oldest event on, up to the first that stays, so that what is kept has no gap.

    One that can't be read, or is of a time to come, goes with the next that is old.

    :return: how many were removed, :data:`PRUNED_AT_ONCE` if there may be more.
    """
    beyond, latest = head(connection) - keep, utcnow() + TO_COME
    removed = last = 0
    rows = connection.execute(f"SELECT {_EVENT} FROM events ORDER BY sequence LIMIT ?", (PRUNED_AT_ONCE,))
    for seen, row in enumerate(rows, 1):
        event = None if row[0] <= beyond else event_of(row, "")
        if event is not None and before <= event.observed_at <= latest:
            break
        # Of others it is not known that they are old until one behind them is, or nothing else is to be seen.
        if row[0] <= beyond or (event is not None and event.observed_at < before) or seen == PRUNED_AT_ONCE:
            removed, last = seen, row[0]
    rows.close()
    connection.execute("DELETE FROM events WHERE sequence <= ?", (last,))
    return removed


def watch(connection: sqlite3.Connection, refs: Collection[JobRef], seconds: float) -> set[str]:
    """:return: the instances that have jobs which were not watched before."""
    now = utcnow()
    since, until = format_time(now), format_time(now + timedelta(seconds=seconds))
    connection.execute("DELETE FROM watches WHERE until <= ?", (since,))
    fresh = set()
    for ref in refs:
        known = connection.execute("SELECT status FROM jobs WHERE instance = ? AND job_id = ?", ref).fetchone()
        if known is not None and known[0] in TERMINAL:
            continue
        watched = connection.execute(
            "UPDATE watches SET until = max(until, ?) WHERE instance = ? AND job_id = ?", (until, *ref)
        )
        if not watched.rowcount:
            connection.execute("INSERT INTO watches VALUES (?, ?, ?, ?)", (*ref, since, until))
            fresh.add(ref.instance)
    return fresh


def watched(connection: sqlite3.Connection, instance: str) -> dict[int, datetime]:
    rows: Sequence[tuple[int, str]] = connection.execute(
        "SELECT job_id, since FROM watches WHERE instance = ? AND until > ?", (instance, format_time(utcnow()))
    ).fetchall()
    return {job_id: moment_of(since) or utcnow() for job_id, since in rows if type(job_id) is int}


def watched_jobs(connection: sqlite3.Connection, instance: str) -> int:
    """How many there are."""
    row = connection.execute(
        "SELECT count(*) FROM watches WHERE instance = ? AND until > ?", (instance, format_time(utcnow()))
    ).fetchone()
    return int(row[0])


def _criteria(wanted: EventFilter) -> tuple[str, list[object]]:
    choices = wanted.choices()
    text = "".join(f" AND {column} IN ({', '.join('?' * len(values))})" for column, values in choices.items())
    return text, [value for values in choices.values() for value in values]

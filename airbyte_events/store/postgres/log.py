"""The log and latest states of a PostgreSQL store."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.errors import StoreError
from airbyte_events.events import Cursor, EventFilter, JobEvent, JobRef
from airbyte_events.store.base import EventLog
from airbyte_events.store.identity import REPLACED, KnownLog, LogReplaced, Tail, ensure_kept
from airbyte_events.store.postgres import schema
from airbyte_events.store.postgres.identity import DIGEST, State
from airbyte_events.store.postgres.operations import PostgresOperations, columns, key_of, lost, operation
from airbyte_events.store.postgres.pool import Connection, fetch_all, fetch_one
from airbyte_events.store.reconcile import annotate
from airbyte_events.store.records import Appended, Lease, LogPage, Settle, States
from airbyte_events.store.rows import EVENT, MAX_CLOCK_SKEW, PRUNED_AT_ONCE, Row

logger = logging.getLogger(__name__)

STATE_COLUMNS = f"{EVENT}, e.revision"
"""The columns of a job's row ``e``."""

_TRIES = 20
_CONFLICT = f"other processes changed the same jobs during each of {_TRIES} attempts to write"


class _JobRow(NamedTuple):
    """:param state: None if unreadable."""

    state: JobEvent | None
    sequence: int
    revision: int


class PostgresLog(PostgresOperations, EventLog):
    """The log and latest states of a PostgreSQL store."""

    async def append(
        self,
        observed: Sequence[JobEvent],
        *,
        lease: Lease | None = None,
        known: States | None = None,
        settle: Settle | None = None,
    ) -> Appended:
        log = self._log

        async def work(connection: Connection) -> Appended:
            appended = await self._append(connection, log.epoch, observed, lease, known, settle)
            # Here, so that readers are woken even if the caller was cancelled.
            self._advance(log, appended)
            return appended

        return await self._run(work)

    async def _append(
        self,
        connection: Connection,
        epoch: str,
        observed: Sequence[JobEvent],
        lease: Lease | None,
        known: States | None,
        settle: Settle | None,
    ) -> Appended:
        """Compute events from the jobs' states and write them if the states are unchanged; otherwise try again."""
        refs = {event.ref for event in observed}
        jobs = known.versions if known is not None and refs <= known.refs else await self._job_rows(connection, refs)
        for _ in range(_TRIES):
            states = _states(jobs, refs)
            appended = Appended.after(Cursor(epoch, 0), states, observed, settle)
            if not appended.events:
                await self._ensure_held(connection, lease)
                return appended
            head = await self._write(connection, appended, jobs, lease)
            if head is not None:
                # Now that their sequences are known.
                before = Cursor(epoch, head - len(appended.events))
                return Appended.after(before, states, observed, lambda _: appended.outcomes)  # noqa: B023
            jobs = await self._job_rows(connection, refs)
        raise StoreError(_CONFLICT)

    @operation
    async def annotate(self, connection: Connection, states: Sequence[JobEvent]) -> None:
        for _ in range(_TRIES):
            jobs = await self._job_rows(connection, {report.ref for report in states})
            annotated: dict[JobRef, JobEvent] = {}
            for report in states:
                job = jobs.get(report.ref)
                if job is not None and job.state is not None:
                    annotated[report.ref] = annotate(annotated.get(report.ref, job.state), report)
            rows = [
                {**_version(ref, jobs.get(ref)), "data": state.data()}
                for ref, state in annotated.items()
                if state != jobs[ref].state
            ]
            if not rows or (await fetch_one(connection, f"SELECT {self._s}.annotate_1(%s)", json.dumps(rows)))[0]:
                return
        raise StoreError(_CONFLICT)

    @operation
    async def _read(
        self, connection: Connection, log: KnownLog, after: int, limit: int, size: int, wanted: EventFilter
    ) -> LogPage:
        where, values = self._criteria(wanted)
        tail = log.tail
        # One statement, for a consistent snapshot; it returns a row even if there are no events.
        found = await connection.execute(
            f"SELECT epoch, head, (SELECT min(sequence) FROM {self._s}.events),"
            f" (SELECT {DIGEST} FROM {self._s}.events WHERE sequence = %s),"
            f" (SELECT {DIGEST} FROM {self._s}.events WHERE sequence = head), {EVENT}, e.upto FROM {self._s}.log"
            " LEFT JOIN LATERAL (SELECT * FROM (SELECT *, sum(bytes) OVER (ORDER BY sequence) AS upto FROM (SELECT *,"
            f" octet_length(data::text) AS bytes FROM {self._s}.events WHERE sequence > %s{where.replace('?', '%s')}"
            " ORDER BY sequence LIMIT %s) page) sized WHERE upto - bytes < %s) e ON true ORDER BY e.sequence",
            [tail.sequence, after, *values, limit, size],
        )
        rows = await found.fetchall()
        if not rows:
            raise LogReplaced("the log has no epoch any more")
        epoch, head, first, seen_mark, head_mark = rows[0][:5]
        if epoch != log.epoch or tail.is_lost(head, first, seen_mark):
            raise LogReplaced(REPLACED)
        log.advance(Tail(head, head_mark))
        ensure_kept(after, first, head)
        if log is self._log:
            self._tail.advance(head)
        page = [row[5:10] for row in rows if row[5] is not None]
        is_full = len(page) == limit or (bool(page) and rows[-1][10] >= size)
        return LogPage(events=list(self._events(page, "events", epoch)), position=page[-1][0] if is_full else head)

    async def _renew(self) -> None:
        await self._run(self._poll)

    async def _poll(self, connection: Connection) -> None:
        log = self._log
        state = await self._identity.current(connection, log.epoch, self._tail.head, log.tail)
        if state.compatible_with > schema.VERSION:
            self._fault = schema.too_new(self._url.schema, schema.VERSION, state.version)
        if state.read_only:
            # Another server may have newer events.
            raise psycopg.errors.ReadOnlySqlTransaction("the server is read-only")
        if state.epoch != self.epoch:
            logger.warning("the log has another epoch than before: clients read the states again")
            self._continue_with(state)
            self._wakeups.wake()
        self._log.advance(Tail(state.head, state.head_mark))
        self._tail.advance(state.head)

    def _continue_with(self, state: State) -> None:
        self._log = KnownLog(state.epoch, Tail(state.head, state.head_mark))
        self._tail.restart(state.head)

    @operation
    async def states(self, connection: Connection, refs: Collection[JobRef]) -> States:
        return _states(await self._job_rows(connection, refs), refs)

    async def _states_of(self, connection: Connection, rows: Iterable[Row], refs: Collection[JobRef]) -> States:
        """Return the states in the jobs' rows with the columns :data:`STATE_COLUMNS`."""
        return _states(await self._read_jobs(connection, rows), refs)

    async def _prunable(self, connection: Connection, before: datetime, keep: int) -> int:
        """Return the sequence up to which events can be removed without a gap; future times are ignored."""
        row = await fetch_one(
            connection,
            f"SELECT coalesce((SELECT sequence - 1 FROM {self._s}.events WHERE sequence > head - %s::bigint"
            f" AND observed_at BETWEEN %s AND %s ORDER BY sequence LIMIT 1), head) FROM {self._s}.log",
            *(keep, before, utcnow() + MAX_CLOCK_SKEW),
        )
        return int(row[0])

    async def _prune_events(self, connection: Connection, last: int) -> int:
        """Remove a page of events up to a sequence and return their number."""
        done = await connection.execute(
            f"DELETE FROM {self._s}.events WHERE sequence IN (SELECT sequence FROM {self._s}.events"
            f" WHERE sequence <= %s ORDER BY sequence LIMIT {PRUNED_AT_ONCE})",
            [last],
        )
        return done.rowcount

    async def _job_rows(self, connection: Connection, refs: Collection[JobRef]) -> dict[JobRef, _JobRow]:
        rows = await fetch_all(
            connection,
            f"SELECT {STATE_COLUMNS} FROM unnest(%s::text[], %s::bigint[]) r (instance, job_id)"
            f" JOIN {self._s}.jobs e USING (instance, job_id)",
            *columns(refs),
        )
        return await self._read_jobs(connection, rows)

    async def _read_jobs(self, connection: Connection, rows: Iterable[Row]) -> dict[JobRef, _JobRow]:
        """Return the rows by job. The newest readable event replaces an unreadable state."""
        jobs = {}
        for *row, revision in rows:
            ref = JobRef(*row[1:3])
            state = next(self._events([row], "jobs"), None)
            if state is None:
                of_job = f"{self._s}.events e WHERE instance = %s AND job_id = %s ORDER BY sequence DESC"
                events = await fetch_all(connection, f"SELECT {EVENT} FROM {of_job}", *ref)
                state = next(self._events(events, "events"), None)
            jobs[ref] = _JobRow(state, row[0], revision)
        return jobs

    async def _write(
        self, connection: Connection, appended: Appended, jobs: Mapping[JobRef, _JobRow], lease: Lease | None
    ) -> int | None:
        """Append the events and settle notifications, in one statement.

        :return: the new head; None if a job changed meanwhile and nothing was written.
        """
        events = [
            {
                "n": number,
                "instance": event.ref.instance,
                "job_id": event.ref.job_id,
                "connection_id": event.connection_id,
                "status": event.status.value,
                "terminal": event.terminal,
                "observed_at": format_time(event.observed_at),
                "data": event.data(),
            }
            for number, event in enumerate(appended.events, 1)
        ]
        expected = [_version(ref, jobs.get(ref)) for ref in {event.ref for event in appended.events}]
        row = await fetch_one(
            connection,
            f"WITH written AS MATERIALIZED (SELECT {self._s}.append_1(%s, %s, %s, %s, %s) AS head),"
            f" settled AS (UPDATE {self._s}.notifications n SET outcome = u.outcome, settled_at = %s"
            " FROM unnest(%s::bigint[], %s::text[]) u (id, outcome), written WHERE n.id = u.id AND head > 0)"
            " SELECT head FROM written",
            json.dumps(events),
            json.dumps(expected),
            *(key_of(lease) if lease is not None else (None, None, None)),
            utcnow(),
            list(appended.outcomes),
            [outcome.value for outcome in appended.outcomes.values()],
        )
        if row[0] == -1:
            raise lost(lease)
        return None if row[0] is None else int(row[0])

    async def _ensure_held(self, connection: Connection, lease: Lease | None) -> None:
        sql = f"SELECT {self._s}.holds_1(%s, %s, %s)"
        if lease is not None and not (await fetch_one(connection, sql, *key_of(lease)))[0]:
            raise lost(lease)


def _states(jobs: Mapping[JobRef, _JobRow], refs: Collection[JobRef]) -> States:
    found = ((ref, jobs[ref].state) for ref in refs if ref in jobs)
    return States({ref: state for ref, state in found if state is not None}, refs=refs, versions=jobs)


def _version(ref: JobRef, job: _JobRow | None) -> dict[str, Any]:
    sequence, revision = (None, None) if job is None else job[1:]
    return {"instance": ref.instance, "job_id": ref.job_id, "sequence": sequence, "revision": revision}

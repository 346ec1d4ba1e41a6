"""The identity of a PostgreSQL log: detect that events were lost, and assign a new epoch."""

from __future__ import annotations

import logging
import secrets
from typing import NamedTuple

import psycopg

from airbyte_events.errors import StoreError
from airbyte_events.store.identity import LOOK_BACK, UNSEEN, Tail
from airbyte_events.store.postgres.pool import Connection, fetch_one

logger = logging.getLogger(__name__)

PLACE = "place"
"""The key of the value that identifies the server, timeline and table at the time of the epoch."""

DIGEST = "encode(sha256(convert_to(data::text, 'UTF8')), 'hex')"
"""SQL expression for the mark of a :class:`~airbyte_events.store.identity.Tail`."""

_TIME = r"^2\d\d\d-(0[1-9]|1[0-2])-([01]\d|2[0-8])T([01]\d|2[0-3])(:[0-5]\d){2}\.\d{6}Z$"
"""Times that PostgreSQL can always parse: without the days that not every month has."""

_UNAVAILABLE = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.ObjectNotInPrerequisiteState,
)


class State(NamedTuple):
    """The state of a log and its schema, polled each second.

    :param compatible_with: the oldest schema version of a program that works on it.
    :param read_only: whether the server is read-only.
    :param head_mark: digest of the newest event.
    :param seen_mark: digest of the requested event.
    :param place: server, timeline and table; None if unavailable.
    :param stored_place: the place that is stored, if one is.
    """

    epoch: str
    head: int
    first: int | None
    version: int
    compatible_with: int
    read_only: bool
    head_mark: str | None
    seen_mark: str | None
    place: str | None
    stored_place: str | None


class Identity:
    """The identity of the log in ``schema``, a name without quotes."""

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._s = f'"{schema}"'

    async def state(self, connection: Connection, seen: int = 0) -> State | None:
        """Return the state, with the digest of the event at sequence ``seen``; None if the log's row is missing."""
        # A standby has no current WAL position to read.
        place = (
            "CASE WHEN current_setting('transaction_read_only') = 'off' THEN (SELECT system_identifier || '/'"
            " || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '/' || %s::regclass::oid FROM pg_control_system())"
            " END"
        )
        try:
            return await self._state(connection, seen, place, f"{self._s}.log")
        except _UNAVAILABLE:
            return await self._state(connection, seen, "NULL")

    async def _state(self, connection: Connection, seen: int, place: str, *values: str) -> State | None:
        """Read all that a poll needs, in one statement.

        :param place: SQL expression of the place, which takes these values. A promotion begins a timeline
            (https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES), and a restored
            dump creates new tables.
        """
        row = await fetch_one(
            connection,
            f"SELECT epoch, head, (SELECT min(sequence) FROM {self._s}.events), version, compatible_with,"
            " current_setting('transaction_read_only') = 'on',"
            f" (SELECT {DIGEST} FROM {self._s}.events WHERE sequence = head),"
            f" (SELECT {DIGEST} FROM {self._s}.events WHERE sequence = %s),"
            f" {place}, (SELECT value FROM {self._s}.meta WHERE key = %s) FROM {self._s}.log, {self._s}.schema_version",
            *(seen, *values, PLACE),
        )
        return None if row is None else State(*row)

    async def current(self, connection: Connection, epoch: str = "", head: int = 0, tail: Tail = UNSEEN) -> State:
        """Return the state, after assigning a new epoch if the log may have lost events.

        A promoted standby and a restored database may lack the last events. Another place, or another event at the
        sequence of the caller's tail, shows that.

        :param epoch: the epoch that the caller knows.
        :param head: the head that the caller knows.
        :param tail: the newest event that the caller read.
        """
        while True:
            state = await self.state(connection, tail.sequence)
            if state is None:
                await self._restore_row(connection)
                continue
            if state.read_only:
                return state
            place, before = state.place, state.stored_place
            moved = place is not None and before is not None and place != before
            lost = state.head < head or tail.is_lost(state.head, state.first, state.seen_mark)
            if moved or (lost and epoch == state.epoch):
                await self._rename(connection, state.epoch, place)
                continue
            if place is not None and before is None:
                sql = f"INSERT INTO {self._s}.meta VALUES (%s, %s) ON CONFLICT DO NOTHING"
                await connection.execute(sql, [PLACE, place])
            return state

    async def _rename(self, connection: Connection, epoch: str, place: str | None) -> None:
        """Assign a new epoch, unless another process has just done so.

        Rewinds polling and frees all leases, so that the next holders read the log anew.
        """
        renamed = await fetch_one(
            connection,
            f"WITH renamed AS (UPDATE {self._s}.log SET epoch = %s WHERE epoch = %s RETURNING epoch),"
            f" placed AS (INSERT INTO {self._s}.meta SELECT %s, p FROM renamed, (SELECT %s::text) x (p)"
            " WHERE p IS NOT NULL ON CONFLICT (key) DO UPDATE SET value = excluded.value),"
            f" rewound AS (UPDATE {self._s}.meta SET value = to_char((value::timestamptz - %s)"
            """ AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM renamed"""
            rf" WHERE key LIKE 'looked\_at/%%' AND value ~ '{_TIME}'),"
            f" freed AS (UPDATE {self._s}.leases SET holder = NULL, fence = fence + 1, expires_at = '-infinity'"
            " FROM renamed RETURNING name)"
            f" SELECT {self._s}.tell_1(array_append(ARRAY(SELECT 'leases/' || name FROM freed), 'log')) FROM renamed",
            *(secrets.token_hex(8), epoch, PLACE, place, LOOK_BACK),
        )
        if renamed is not None:
            logger.error("the log has lost events, or may have: it has a new epoch, and clients read the states again")

    async def _restore_row(self, connection: Connection) -> None:
        """Recreate the missing row of the log."""
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {self._s}.log IN SHARE ROW EXCLUSIVE MODE")
            made = await fetch_one(
                connection,
                f"INSERT INTO {self._s}.log SELECT %s, greatest((SELECT max(sequence) FROM {self._s}.events),"
                f" (SELECT max(sequence) FROM {self._s}.jobs), 0) WHERE NOT EXISTS (SELECT FROM {self._s}.log)"
                " RETURNING head",
                secrets.token_hex(8),
            )
            if made is None and await fetch_one(connection, f"SELECT FROM {self._s}.schema_version") is None:
                raise StoreError(f"the schema {self._schema} is damaged: it has no version")
        if made is not None:
            logger.error("the log's epoch was missing, so it has a new one")

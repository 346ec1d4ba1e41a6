"""The identity of a PostgreSQL log: its epoch, what tells that it is another log, and how it gets a new epoch."""

from __future__ import annotations

import logging
import secrets
from typing import Any, NamedTuple

import psycopg

from airbyte_events.errors import StoreError
from airbyte_events.store.identity import LOOK_BACK, UNSEEN, Tail
from airbyte_events.store.postgres.pool import Connection

logger = logging.getLogger(__name__)

PLACE = "place"
"""The value that says where the log was when it got its epoch."""

MARK = "encode(sha256(convert_to(data::text, 'UTF8')), 'hex')"
"""What :class:`~airbyte_events.store.identity.Tail` compares."""


_TIME = r"^2\d\d\d-(0[1-9]|1[0-2])-([01]\d|2[0-8])T([01]\d|2[0-3])(:[0-5]\d){2}\.\d{6}Z$"
"""Times that the database surely reads; of the days that not every month has the next one will do."""

_NOT_TOLD = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.ObjectNotInPrerequisiteState,
)


class State(NamedTuple):
    """What a store looks at each second.

    :param head: the newest sequence.
    :param first: the oldest that is kept.
    :param version: the schema's.
    :param compatible_with: the oldest version of this program's schema that works on it.
    :param read_only: whether the server refuses to write.
    :param head_mark: the digest of the newest event.
    :param seen_mark: that of the event that was asked for.
    """

    epoch: str
    head: int
    first: int | None
    version: int
    compatible_with: int
    read_only: bool
    head_mark: str | None
    seen_mark: str | None


class Identity:
    """:param schema: what holds the tables, without quotes."""

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._s = f'"{schema}"'

    async def state(self, connection: Connection, seen: int = 0) -> State | None:
        """None if the log has lost its row.

        :param seen: the sequence whose mark is wanted.
        """
        row = await _one(
            connection,
            f"SELECT epoch, head, (SELECT min(sequence) FROM {self._s}.events), version, compatible_with,"
            " current_setting('transaction_read_only') = 'on',"
            f" (SELECT {MARK} FROM {self._s}.events WHERE sequence = head),"
            f" (SELECT {MARK} FROM {self._s}.events WHERE sequence = %s)"
            f" FROM {self._s}.log, {self._s}.schema_version",
            seen,
        )
        return None if row is None else State(*row)

    async def current(self, connection: Connection, epoch: str = "", head: int = 0, tail: Tail = UNSEEN) -> State:
        """The state, once the log has got a new epoch if it is not the one that was seen.

        A server that has become the primary may lack the last events, and so may a database that was put back: that
        shows by where the log is, or by what this process has seen of it.

        :param epoch: which the caller knows the log by.
        :param head: how far the caller knows it.
        :param tail: what the caller has seen of it.
        """
        while True:
            state = await self.state(connection, tail.sequence)
            if state is None:
                await self._make_log(connection)
                continue
            if state.read_only:
                return state
            place, before = await self._place(connection), await self._stored_place(connection)
            moved = place is not None and before is not None and place != before
            lost = state.head < head or tail.is_lost(state.head, state.first, state.seen_mark)
            if moved or (lost and epoch == state.epoch):
                await self._rename(connection, state.epoch, place)
                continue
            if place is not None and before is None:
                await self._keep_place(connection, place)
            return state

    async def _place(self, connection: Connection) -> str | None:
        """Server, timeline and table; None where that may not be known.

        A promotion begins a timeline
        (https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES), and a restored dump makes
        the tables anew.
        """
        try:
            row = await _one(
                connection,
                "SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '/'"
                " || %s::regclass::oid FROM pg_control_system()",
                f"{self._s}.log",
            )
        except _NOT_TOLD:
            return None
        return str(row[0])

    async def _stored_place(self, connection: Connection) -> str | None:
        row = await _one(connection, f"SELECT value FROM {self._s}.meta WHERE key = %s", PLACE)
        return None if row is None else str(row[0])

    async def _keep_place(self, connection: Connection, place: str) -> None:
        await connection.execute(f"INSERT INTO {self._s}.meta VALUES (%s, %s) ON CONFLICT DO NOTHING", [PLACE, place])

    async def _rename(self, connection: Connection, epoch: str, place: str | None) -> None:
        """Give the log a new epoch, unless another process has just done so.

        What was found lately is looked for again, by whoever takes the leases anew: what they remember of the log may
        not be so any more.
        """
        renamed = await _one(
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

    async def _make_log(self, connection: Connection) -> None:
        """Make the log's row anew where it is missing."""
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {self._s}.log IN SHARE ROW EXCLUSIVE MODE")
            made = await _one(
                connection,
                f"INSERT INTO {self._s}.log SELECT %s, greatest((SELECT max(sequence) FROM {self._s}.events),"
                f" (SELECT max(sequence) FROM {self._s}.jobs), 0) WHERE NOT EXISTS (SELECT FROM {self._s}.log)"
                " RETURNING head",
                secrets.token_hex(8),
            )
            if made is None and await _one(connection, f"SELECT FROM {self._s}.schema_version") is None:
                raise StoreError(f"the schema {self._schema} is damaged: it has no version")
        if made is not None:
            logger.error("the log had no epoch any more: it has a new one, and clients read the states again")


async def _one(connection: Connection, sql: str, *values: object) -> Any:
    return await (await connection.execute(sql, values)).fetchone()

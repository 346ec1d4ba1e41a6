"""The notifications and deliveries of a PostgreSQL store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from airbyte_events._utils.times import utcnow
from airbyte_events.events import JobRef
from airbyte_events.store.base import ANNOUNCEMENTS, ANNOUNCING_KINDS, PENDING_BYTES
from airbyte_events.store.postgres.log import STATE_COLUMNS, PostgresLog
from airbyte_events.store.postgres.operations import operation
from airbyte_events.store.postgres.pool import Connection, fetch_all, fetch_one
from airbyte_events.store.records import (
    REPEATED_WITHIN,
    Arrival,
    Attempt,
    Outcome,
    Pending,
    Receipt,
    StoredNotification,
    digest_of,
)
from airbyte_events.store.rows import NOTIFICATION, PRUNED_AT_ONCE, notification_of


class PostgresInbox(PostgresLog):
    """The notifications and deliveries of a PostgreSQL store."""

    async def _receive_all(self, connection: Connection, arrivals: Sequence[Arrival]) -> list[Receipt]:
        """Store all, in one round trip, or none."""
        digests = [digest_of(each) for each in arrivals]
        # A batch may contain duplicates.
        firsts = {digest: place for place, digest in reversed(list(enumerate(digests)))}
        unique = [arrivals[place] for place in sorted(firsts.values())]
        numbers = {digests[place]: number for number, place in enumerate(sorted(firsts.values()), 1)}
        targets = [
            {"n": number, "place": place, "target": target}
            for number, each in enumerate(unique, 1)
            for place, target in enumerate(dict.fromkeys(each.targets))
        ]
        found = await connection.execute(
            f"SELECT number, key, duplicate FROM {self._s}.receive_1(%s::text[], ARRAY(SELECT coalesce((SELECT digest"
            f" FROM {self._s}.notifications WHERE digest = d.before AND received_at > d.at - %s), d.digest)"
            " FROM unnest(%s::bytea[], %s::bytea[], %s::timestamptz[]) WITH ORDINALITY d (digest, before, at, n)"
            " ORDER BY n), %s::timestamptz[], %s::text[], %s::bigint[], %s::bytea[], %s::text[], %s)",
            [
                [each.instance for each in unique],
                REPEATED_WITHIN,
                list(numbers),
                [each.digest_before for each in unique],
                [each.received_at for each in unique],
                [each.received_at for each in unique],
                [each.kind for each in unique],
                [each.job_id for each in unique],
                [each.body for each in unique],
                [each.outcome.value for each in unique],
                json.dumps(targets),
            ],
        )
        receipts = {number: (key, duplicate) for number, key, duplicate in await found.fetchall()}
        result = []
        for place, digest in enumerate(digests):
            key, duplicate = receipts[numbers[digest]]
            result.append(Receipt(id=key, duplicate=duplicate or place != firsts[digest]))
        return result

    @operation
    async def pending(self, connection: Connection, instance: str, *, after: int = 0, limit: int = 500) -> Pending:
        sql = (
            f"SELECT {NOTIFICATION}, waiting, EXISTS (SELECT FROM {self._s}.notifications a"
            " WHERE (a.instance, a.job_id) = (n.instance, n.job_id) AND a.kind = ANY (%s) AND a.id <> n.id),"
            f" {STATE_COLUMNS} FROM {self._s}.notifications n"
            " JOIN (SELECT id, sum(octet_length(body)) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) size,"
            " row_number() OVER (ORDER BY id) place, count(*) OVER () waiting"
            f" FROM (SELECT id, body FROM {self._s}.notifications"
            " WHERE outcome = 'pending' AND instance = %s AND id > %s ORDER BY id LIMIT %s) few) p ON p.id = n.id"
            f" LEFT JOIN {self._s}.jobs e ON (e.instance, e.job_id) = (n.instance, n.job_id)"
            " WHERE size <= %s OR place = 1 ORDER BY n.id"
        )
        values = (list(ANNOUNCING_KINDS), instance, after, limit, PENDING_BYTES)
        while rows := await fetch_all(connection, sql, *values):
            unreadable: list[int] = []
            found = list(self._unreadable.sift(rows, "notifications", lambda row: notification_of(row[:8]), unreadable))
            if unreadable:
                await self._settle(connection, dict.fromkeys(unreadable, Outcome.REJECTED), utcnow())
            if found:
                jobs = {row[11:13]: row[10:] for row in rows if row[10] is not None}
                return Pending(
                    found,
                    states=await self._states_of(connection, jobs.values(), {item.ref for item in found if item.ref}),
                    announced={JobRef(instance, row[4]) for row in rows if row[9]},
                    more=rows[0][8] == limit or rows[0][8] > len(rows),
                )
        return Pending()

    async def settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> None:
        await self._run_waking("inbox", lambda c: self._settle(c, outcomes, settled_at))

    async def _settle(self, connection: Connection, outcomes: Mapping[int, Outcome], settled_at: datetime) -> list[str]:
        """Return the instances with notifications queued again."""
        return await self._update(
            connection,
            f"UPDATE {self._s}.notifications n SET outcome = u.outcome,"
            " settled_at = CASE WHEN u.outcome <> 'pending' THEN %s END"
            " FROM unnest(%s::bigint[], %s::text[]) u (id, outcome) WHERE n.id = u.id"
            " RETURNING n.instance, n.outcome = 'pending' AS again",
            "inbox/",
            [settled_at, list(outcomes), [outcome.value for outcome in outcomes.values()]],
        )

    @operation
    async def announcements(
        self, connection: Connection, refs: Mapping[JobRef, datetime | None]
    ) -> dict[JobRef, list[StoredNotification]]:
        of_job = (
            f"SELECT id FROM {self._s}.notifications a WHERE (a.instance, a.job_id) = (r.instance, r.job_id)"
            " AND a.kind = ANY (%s)"
        )
        rows = await fetch_all(
            connection,
            f"SELECT {NOTIFICATION} FROM {self._s}.notifications n WHERE n.id IN (SELECT c.id"
            " FROM unnest(%s::text[], %s::bigint[], %s::timestamptz[])"
            f" r (instance, job_id, since) CROSS JOIN LATERAL (({of_job} ORDER BY id LIMIT %s)"
            f" UNION ({of_job} ORDER BY id DESC LIMIT %s)"
            f" UNION ({of_job} AND a.received_at >= r.since ORDER BY id LIMIT %s)) c) ORDER BY n.id",
            [ref.instance for ref in refs],
            [ref.job_id for ref in refs],
            list(refs.values()),
            *(list(ANNOUNCING_KINDS), ANNOUNCEMENTS) * 3,
        )
        by_job: dict[JobRef, list[StoredNotification]] = {}
        for each in self._unreadable.sift(rows, "notifications", notification_of):
            if each.ref is not None:
                by_job.setdefault(each.ref, []).append(each)
        return by_job

    async def attempted(self, attempts: Sequence[Attempt]) -> None:
        await self._run_waking("deliveries", lambda c: self._attempted(c, attempts))

    async def _attempted(self, connection: Connection, attempts: Sequence[Attempt]) -> list[str]:
        """Return the instances with deliveries to retry."""
        return await self._update(
            connection,
            f"UPDATE {self._s}.deliveries d SET state = u.state, attempts = d.attempts + u.sent, due_at = u.due_at,"
            " fault = u.fault FROM unnest(%s::bigint[], %s::text[], %s::timestamptz[], %s::text[], %s::int[])"
            " u (id, state, due_at, fault, sent) WHERE d.id = u.id RETURNING d.instance, d.state = 'due' AS again",
            "deliveries/",
            [
                [each.delivery for each in attempts],
                [each.state.value for each in attempts],
                [each.due_at for each in attempts],
                [each.fault for each in attempts],
                [int(each.sent) for each in attempts],
            ],
        )

    async def _prune_notifications(self, connection: Connection, before: datetime) -> int:
        """Remove a page of notifications with their deliveries and return their number."""
        done = await connection.execute(
            f"DELETE FROM {self._s}.notifications WHERE id IN (SELECT id FROM {self._s}.notifications n"
            " WHERE received_at < %s AND outcome <> 'pending' AND coalesce(settled_at, received_at) < %s"
            f" AND NOT EXISTS (SELECT FROM {self._s}.deliveries d WHERE d.notification = n.id AND d.state = 'due')"
            f" ORDER BY received_at LIMIT {PRUNED_AT_ONCE})",
            [before, before],
        )
        return done.rowcount

    async def _update(self, connection: Connection, sql: str, topic: str, values: list[object]) -> list[str]:
        """Run an update that returns instances; notify of those with work again and return them."""
        row = await fetch_one(
            connection,
            f"WITH done AS ({sql}), news AS (SELECT DISTINCT instance FROM done WHERE again)"
            f" SELECT array_agg(instance), {self._s}.tell_1(array_agg(%s || instance)) FROM news",
            *(*values, topic),
        )
        return row[0] if row is not None and row[0] else []

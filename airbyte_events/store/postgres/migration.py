"""Fill a PostgreSQL store from another store, in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterable

from airbyte_events.errors import StoreError
from airbyte_events.store.migration import NOT_EMPTY, Batch
from airbyte_events.store.postgres.pool import Connection


async def fill(connection: Connection, schema: str, epoch: str, head: int, batches: AsyncIterable[Batch]) -> None:
    """Store all rows unchanged, or none.

    :param schema: name of the schema, in quotes.
    :raises StoreError: if the store is not empty.
    """
    async with connection.transaction():
        found = await connection.execute(
            f"SELECT head > 0 OR EXISTS (SELECT FROM {schema}.notifications) FROM {schema}.log FOR UPDATE"
        )
        if await found.fetchone() != (False,):
            raise StoreError(NOT_EMPTY)
        await connection.execute(f"DELETE FROM {schema}.meta")
        async for batch in batches:
            for table, rows in batch.rows().items():
                places = ", ".join(f"%({column})s" for column in rows[0])
                # Rows with the same key hold the same state.
                await connection.cursor().executemany(
                    f"INSERT INTO {schema}.{table} ({', '.join(rows[0])}) VALUES ({places}) ON CONFLICT DO NOTHING",
                    rows,
                )
        for table in ("notifications", "deliveries"):
            await connection.execute(
                f"SELECT setval('{schema}.{table}_id_seq', max(id)) FROM {schema}.{table} HAVING max(id) IS NOT NULL"
            )
        await connection.execute(f"UPDATE {schema}.log SET epoch = %s, head = %s", [epoch, head])

"""What is done to a whole store: verify it, write it to a file, fill it from one, move it to another."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from itertools import islice
from typing import TextIO

import anyio.to_thread

from airbyte_events.errors import StoreError
from airbyte_events.store.base import EventStore
from airbyte_events.store.dump import NOTHING, Record
from airbyte_events.store.verification import Verification

Advance = Callable[[], object]
"""Called for each record that was done."""

_LINES = 1_000


async def verify(store: EventStore, advance: Advance) -> Verification:
    """Read all that is in a store, and say what is wrong with it."""
    verification = Verification()
    try:
        verification.faults += await store.damage()
        async with aclosing(store.dump()) as records:
            async for record in records:
                verification.take(record)
                advance()
        verification.finish()
    except StoreError as exc:
        verification.faults.append(f"not all of it can be read: {exc}")
    return verification


async def write(store: EventStore, file: TextIO, advance: Advance) -> Counter[str]:
    """Write a store to a file of JSON lines.

    :return: how many records of each kind there are.
    """
    count: Counter[str] = Counter()
    async with aclosing(store.dump()) as records:
        async for record in records:
            file.write(json.dumps(record) + "\n")
            count[record["record"]] += 1
            advance()
    file.write(json.dumps({"record": "end", "records": count.total()}) + "\n")
    return count


async def read(store: EventStore, file: TextIO, advance: Advance, *, new_log: bool = False) -> Counter[str]:
    """Fill an empty store from such a file.

    :param new_log: it gets an identity of its own, so that no cursor of the log that was written goes on in it.
    :return: how many records of each kind there were.
    :raises StoreError: if the store is not empty, or the file is not whole; nothing was stored.
    """
    count: Counter[str] = Counter()
    async with aclosing(_read(file)) as records:
        await store.restore(_counted(_renewed(records) if new_log else records, count, advance))
    return count


async def move(source: EventStore, target: EventStore, advance: Advance) -> Counter[str]:
    """Fill an empty store from another, which stays as it is.

    :return: how many records of each kind there were.
    :raises StoreError: if the target is not empty, or what the source holds can't be read; nothing was stored.
    """
    count: Counter[str] = Counter()
    async with aclosing(source.dump()) as records:
        await target.restore(_counted(records, count, advance))
    return count


async def _counted(records: AsyncIterator[Record], count: Counter[str], advance: Advance) -> AsyncIterator[Record]:
    async for record in records:
        count[str(record["record"])] += 1
        yield record
        advance()


async def _renewed(records: AsyncIterator[Record]) -> AsyncIterator[Record]:
    async for record in records:
        yield record | {"epoch": secrets.token_hex(8)} if record["record"] == "log" else record


async def _read(file: TextIO) -> AsyncGenerator[Record, None]:
    number = 0
    record: Record = {}
    while lines := await anyio.to_thread.run_sync(lambda: list(islice(file, _LINES))):
        for line in lines:
            if record.get("record") == "end":
                raise StoreError(f"line {number + 1} of the export comes after its end")
            number += 1
            record = _parse(line, number)
            if record.get("record") != "end":
                yield record
            elif record.get("records") != number - 1:
                raise StoreError(f"the export has {number - 1} records, and had {record.get('records')} when written")
    if number == 0:
        raise StoreError(NOTHING)
    if record.get("record") != "end":
        raise StoreError(f"the export is cut off after line {number}")


def _parse(line: str, number: int) -> Record:
    try:
        record = json.loads(line)
        if isinstance(record, dict) and isinstance(record.get("record"), str):
            return record
    except ValueError:
        pass
    raise StoreError(f"line {number} is no record of an export of airbyte-events")

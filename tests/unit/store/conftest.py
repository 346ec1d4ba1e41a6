"""The stores, every one of which passes the same tests, and what these tests store."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from airbyte_events.events import EventFilter
from airbyte_events.store.base import EventStore
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.postgres.store import PostgresStore
from airbyte_events.store.sqlite.store import SQLiteStore


def one_of(**criteria: Any) -> EventFilter:
    given: dict[str, Any] = {n: v if isinstance(v, bool) else frozenset(v) for n, v in criteria.items()}
    return EventFilter(**given)


@dataclass(frozen=True)
class Kind:
    """:param open: the store of a folder, one that is there or a new one.
    :param durable: whether it outlives being opened.
    :param shared: whether several can be open at once.
    :param prune: cut off a folder's oldest events; the memory store forgets by itself.
    """

    open: Callable[[Path], EventStore]
    durable: bool
    shared: bool = False
    prune: Callable[[Path, int], None] | None = None


def _cut_off(folder: Path, sequence: int) -> None:
    connection = sqlite3.connect(folder / "events.db")
    with connection:
        connection.execute("DELETE FROM events WHERE sequence <= ?", (sequence,))
    connection.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "memory":
        return Kind(lambda folder: MemoryStore(capacity=1_000), durable=False)
    if request.param == "sqlite":
        return Kind(lambda folder: SQLiteStore(folder / "events.db"), durable=True, prune=_cut_off)
    url: str = request.getfixturevalue("postgres_url")

    def schema(folder: Path) -> str:
        return "t" + hashlib.sha256(str(folder).encode()).hexdigest()[:24]

    def cut_off(folder: Path, sequence: int) -> None:
        with psycopg.connect(url) as connection:
            connection.execute(f"DELETE FROM {schema(folder)}.events WHERE sequence <= {sequence}")

    return Kind(
        lambda folder: PostgresStore(f"{url}?schema={schema(folder)}"), durable=True, shared=True, prune=cut_off
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # PostgreSQL's driver runs on asyncio.
    items[:] = [
        item
        for item in items
        if not isinstance(item, pytest.Function)
        or not hasattr(item, "callspec")
        or (item.callspec.params.get("kind"), item.callspec.params.get("anyio_backend")) != ("postgres", "trio")
    ]


@pytest.fixture
async def store(kind: Kind, tmp_path: Path) -> AsyncIterator[EventStore]:
    async with kind.open(tmp_path) as store:
        yield store

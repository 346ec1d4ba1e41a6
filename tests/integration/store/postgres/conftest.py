"""A PostgreSQL server that may be stopped and killed, and what these tests store in it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from airbyte_events.store.postgres.store import PostgresStore
from postgres_server import PostgresServer, running
from support.loops import anyio_backend as anyio_backend


@pytest.fixture(scope="session")
def _server() -> Iterator[PostgresServer]:
    with running() as server:
        yield server


@pytest.fixture
def server(_server: PostgresServer) -> PostgresServer:
    """Up, whatever the test before did to it."""
    _server.start()
    return _server


_numbers = itertools.count()


@pytest.fixture
def database(server: PostgresServer) -> str:
    """A new one, by name."""
    name = f"d{next(_numbers)}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return name


@pytest.fixture
def url(server: PostgresServer, database: str) -> str:
    return server.url(database)


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(url) as store:
        yield store

"""A PostgreSQL server that may be stopped and killed, and what these tests store in it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from airbyte_events.events import JobEvent, JobRef, JobStatus, Origin
from airbyte_events.store.base import EventStore
from airbyte_events.store.postgres.store import PostgresStore
from airbyte_events.store.records import Arrival, Outcome, Receipt
from postgres_server import PostgresServer, running
from support.loops import anyio_backend as anyio_backend

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def event(job_id: int = 1, status: JobStatus = JobStatus.RUNNING) -> JobEvent:
    return JobEvent(ref=JobRef("default", job_id), status=status, observed_at=NOON, origin=Origin.POLL)


async def received(store: EventStore, body: bytes, **values: object) -> Receipt:
    given: dict[str, object] = {"kind": "success", "job_id": 1, "outcome": Outcome.PENDING, "received_at": NOON}
    return await store.receive(Arrival(instance="default", body=body, **(given | values)))  # type: ignore[arg-type]


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

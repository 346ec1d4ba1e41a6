"""The stores beside bare inserts on the same engines: notifications, events, a log that grows, catching up."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import psycopg
from part import Aim, Row, micros
from part import seconds as shown

from airbyte_events.events import JobEvent, JobRef, JobStatus, Origin
from airbyte_events.simulator import Script
from airbyte_events.simulator.notification_bodies import job_ended
from airbyte_events.simulator.timers import Timers
from airbyte_events.simulator.world import World
from airbyte_events.store.base import EventStore
from airbyte_events.store.postgres.store import PostgresStore
from airbyte_events.store.records import Arrival, Outcome
from airbyte_events.store.sqlite.store import SQLiteStore
from postgres_server import PostgresServer, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from processes import Processes

TITLE = "The stores"
NOTE = "*Bare* is an insert on the same engine with the same settings that does nothing else."
COLUMNS = ("SQLite", "bare SQLite", "PostgreSQL", "bare PostgreSQL")
ENGINES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
CALLERS = 64
BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """:param notifications: from :data:`CALLERS` callers at a time.
    :param sizes: of the log at which it is measured what :data:`BATCH` events at a time cost.
    :param caught_up: events that one reader reads from the first on.
    """

    notifications: int = 20_000
    sizes: tuple[int, ...] = (10_000, 100_000)
    caught_up: int = 50_000


FULL = Scale()
SMALL = Scale(notifications=1_000, sizes=(2_000,), caught_up=1_000)


def duration(scale: Scale) -> float:
    """About how long it takes, in seconds."""
    return 2 + scale.notifications * 0.0005 + max(scale.sizes) * 0.0003


def rows(seen: Mapping[str, Any]) -> Iterator[Row]:
    lite = seen["sqlite"]
    cells = {}
    for engine, column in ENGINES.items():
        cells[column] = f"{seen[engine]['received_per_second']:,.0f}"
        cells[f"bare {column}"] = f"{seen[engine]['bare_received_per_second']:,.0f}"
    yield Row(what=f"notifications stored durably a second, from {lite['callers']} callers", cells=cells)
    for size in lite["appended"]:
        cells = {}
        for engine, column in ENGINES.items():
            cells[column] = micros(seen[engine]["appended"][size])
            if size == list(lite["appended"])[-1]:
                cells[f"bare {column}"] = micros(1e6 / seen[engine]["bare_appended_per_second"])
        yield Row(what=f"an event in a batch of {lite['batch']}, {int(size):,} in the log", cells=cells)
    cells = {column: shown(seen[engine]["caught_up"]["seconds"]) for engine, column in ENGINES.items()}
    yield Row(what=f"a reader catches up on {lite['caught_up']['events']:,} events", cells=cells)


def aims(seen: Mapping[str, Any]) -> Iterator[Aim]:
    yield from ()


def measure(processes: Processes, home: Path, scale: Scale, progress: Callable[[str], None]) -> dict[str, Any]:
    """By engine: figures of the store and of bare inserts."""
    home.mkdir(parents=True, exist_ok=True)
    # As it is run by people who mean to keep what they have.
    with running(fsync="on", autovacuum="on", shared_buffers="128MB") as server:
        return anyio.run(_measure, home, server, scale, progress)


async def _measure(home: Path, server: PostgresServer, scale: Scale, progress: Callable[[str], None]) -> dict[str, Any]:
    bodies = _bodies(scale.notifications)
    engines: dict[str, tuple[Callable[[], EventStore], Bare]] = {
        "sqlite": (lambda: SQLiteStore(home / "events.db"), _bare_sqlite(home / "bare.db")),
        "postgres": (lambda: PostgresStore(server.url()), _bare_postgres(server.url())),
    }
    figures: dict[str, Any] = {}
    for name, (store, bare) in engines.items():
        progress(f"{name}: {scale.notifications:,} notifications")
        async with store() as opened:
            received = await _receive(opened, bodies)
        size = max(CALLERS // 2, 1)
        figures[name] = {
            "received_per_second": received,
            "bare_received_per_second": await bare([(body,) for body in bodies], size),
            "callers": CALLERS,
        }
    for name, (store, bare) in engines.items():
        async with store() as opened:
            figures[name]["appended"] = await _grow(opened, scale, partial(_tell, progress, name))
            figures[name]["caught_up"] = {
                "events": scale.caught_up,
                "seconds": await _catch_up(opened, scale.caught_up),
            }
        texts = [(json.dumps(_event(number).data()).encode(),) for number in range(10_000)]
        figures[name]["bare_appended_per_second"] = await bare(texts, BATCH)
        figures[name]["batch"] = BATCH
    return figures


def _tell(progress: Callable[[str], None], engine: str, done: int) -> None:
    progress(f"{engine}: {done:,} events")


async def _receive(store: EventStore, bodies: list[bytes]) -> float:
    """Notifications a second."""
    left = iter(enumerate(bodies, 1))

    async def call() -> None:
        for job_id, body in left:
            await store.receive(
                Arrival(
                    instance="default",
                    body=body,
                    kind="success",
                    job_id=job_id,
                    outcome=Outcome.PENDING,
                    received_at=NOON,
                )
            )

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(CALLERS):
            tasks.start_soon(call)
    return len(bodies) / (time.perf_counter() - began)


async def _grow(store: EventStore, scale: Scale, tell: Callable[[int], object]) -> dict[str, float]:
    """Microseconds an event, over the last 10,000 before each size."""
    costs = {}
    done = 0
    for size in scale.sizes:
        measured = min(10_000, size - done)
        await _append(store, done, size - measured)
        took = await _append(store, size - measured, size)
        done = size
        costs[str(size)] = took / measured * 1e6
        tell(done)
    return costs


async def _append(store: EventStore, first: int, last: int) -> float:
    took = 0.0
    for start in range(first, last, BATCH):
        batch = [_event(number) for number in range(start, min(start + BATCH, last))]
        began = time.perf_counter()
        await store.append(batch)
        took += time.perf_counter() - began
    return took


async def _catch_up(store: EventStore, count: int) -> float:
    began = time.perf_counter()
    position = await store.head() - count
    seen = 0
    while seen < count:
        page = await store.read(position, limit=1_000)
        position, seen = page.position, seen + len(page.events)
    return time.perf_counter() - began


def _event(number: int) -> JobEvent:
    """Each job has two: that it runs, and that it has succeeded."""
    return JobEvent(
        ref=JobRef("default", number // 2 + 1),
        status=JobStatus.SUCCEEDED if number % 2 else JobStatus.RUNNING,
        observed_at=NOON,
        origin=Origin.POLL,
        connection_id=f"5a1f0e5c-0000-4000-8000-{number % 1000:012d}",
        job_type="sync",
        started_at=NOON,
        records=number,
    )


def _bodies(count: int) -> list[bytes]:
    world = World(Timers())
    workspace = world.add_workspace()
    bodies = []
    for job_id in range(1, count + 1):
        job = world.start_job(world.add_connection(Script.hanging()))
        job.id = job_id
        bodies.append(json.dumps(job_ended(world.end_job(job, "succeeded"), workspace, "http://airbyte")).encode())
    return bodies


Bare = Callable[[list[tuple[bytes]], int], Awaitable[float]]
"""Inserts rows, so many a transaction, into a table of one column; rows a second are returned."""


def _bare_sqlite(path: Path) -> Bare:
    def insert(rows: list[tuple[bytes]], size: int) -> float:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("CREATE TABLE IF NOT EXISTS bare (id INTEGER PRIMARY KEY, body BLOB)")
            began = time.perf_counter()
            for start in range(0, len(rows), size):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT INTO bare (body) VALUES (?)", rows[start : start + size])
                connection.execute("COMMIT")
            return len(rows) / (time.perf_counter() - began)

    async def bare(rows: list[tuple[bytes]], size: int) -> float:
        return await anyio.to_thread.run_sync(insert, rows, size)

    return bare


def _bare_postgres(url: str) -> Bare:
    async def bare(rows: list[tuple[bytes]], size: int) -> float:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute("CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, body bytea)")
            began = time.perf_counter()
            for start in range(0, len(rows), size):
                bodies = [row[0] for row in rows[start : start + size]]
                await connection.execute("INSERT INTO bare (body) SELECT unnest(%s::bytea[])", (bodies,))
            return len(rows) / (time.perf_counter() - began)

    return bare

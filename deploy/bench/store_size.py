"""What a SQLite store takes on disk, and how long its upkeep takes: ``python deploy/bench/store_size.py``.

Events are those of jobs that ran and ended, two each, with all that is known of one; bodies are as long as Airbyte's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events.events import JobEvent, JobRef, JobStatus, Origin
from airbyte_events.store import migration
from airbyte_events.store.records import Arrival, Outcome
from airbyte_events.store.sqlite.store import SQLiteStore

BATCH = 1_000
BODY = 2_500


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what:40} {time.monotonic() - began:10.1f} s", flush=True)


def event(job_id: int, status: JobStatus) -> JobEvent:
    now = utcnow()
    connection = str(UUID(int=job_id % 500))
    done = status.terminal
    return JobEvent(
        ref=JobRef("default", job_id),
        status=status,
        observed_at=now,
        origin=Origin.WEBHOOK if done else Origin.POLL,
        connection_id=connection,
        workspace_id=str(UUID(int=1)),
        job_type="sync",
        started_at=now - timedelta(minutes=1),
        finished_at=now if done else None,
        records=123_456 if done else None,
        bytes=12_345_678 if done else None,
        duration_seconds=60.0 if done else None,
        names={name: f"Production {name}" for name in ("workspace", "connection", "source", "destination")}
        if done
        else {},
        url=f"https://airbyte.example.com/workspaces/{UUID(int=1)}/connections/{connection}" if done else None,
    )


async def measure(events: int, notifications: int, folder: Path) -> None:
    path = folder / "events.db"
    async with SQLiteStore(path) as store:
        with timed(f"{events:,} events stored"):
            for first in range(1, events // 2 + 1, BATCH):
                jobs = range(first, min(first + BATCH, events // 2 + 1))
                await store.append([event(job_id, JobStatus.RUNNING) for job_id in jobs])
                await store.append([event(job_id, JobStatus.SUCCEEDED) for job_id in jobs])
        size = (await store.stats()).bytes
        print(f"{'per million events':40} {size / events * 1e6 / 2**20:10.0f} MiB")

        async def receive(number: int) -> None:
            await store.receive(
                Arrival(
                    instance="default",
                    body=json.dumps({"n": number, "text": "x" * BODY}).encode(),
                    kind="success",
                    job_id=number,
                    outcome=Outcome.CONFIRMED,
                    received_at=utcnow(),
                )
            )

        with timed(f"{notifications:,} notifications stored"):
            for first in range(0, notifications, BATCH):
                async with anyio.create_task_group() as tasks:
                    for number in range(first, min(first + BATCH, notifications)):
                        tasks.start_soon(receive, number)
        size = (await store.stats()).bytes - size
        print(f"{'per million notifications':40} {size / max(notifications, 1) * 1e6 / 2**20:10.0f} MiB")
        with timed("stats"):
            await store.stats()
    async with SQLiteStore(path) as store, SQLiteStore(folder / "other.db") as other:
        with timed("migrate"):
            await migration.migrate(store, other, lambda _: None)
    async with SQLiteStore(path) as store:
        with timed("prune all but a tenth of the events"):
            await store.prune(utcnow() - timedelta(days=1), keep=events // 10)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--notifications", type=int, default=20_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        anyio.run(measure, given.events, given.notifications, Path(name))

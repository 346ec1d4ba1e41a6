"""A store with very many jobs in it, filled as a migration does: as after weeks at a large Airbyte."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events.events import Cursor, JobError, JobEvent, JobRef, JobStatus, Origin, TaskReceipt
from airbyte_events.store.migration import Batch
from airbyte_events.store.records import Outcome, StoredNotification
from airbyte_events.store.sqlite.store import SQLiteStore

EPOCH = "0123456789abcdef"
CONNECTIONS = 120
REASONS = (
    JobError(message="Could not connect to the source: wrong password", type="config_error", origin="source"),
    JobError(message="Snowflake said: warehouse LOADING is suspended", type="transient_error", origin="destination"),
    JobError(message=None, type="system_error", origin="replication"),
)
_SOURCES = ("Postgres", "Salesforce", "Stripe", "Zendesk", "Google Ads", "MySQL")
_DESTINATIONS = ("Snowflake", "BigQuery", "Redshift")


def fill(
    path: Path,
    count: int,
    *,
    instances: tuple[str, ...] = ("default",),
    running: int = 40,
    names: tuple[str, ...] = (),
) -> None:
    """Make a SQLite store at ``path``.

    :param count: jobs that have ended, one every four minutes until now.
    :param running: jobs that run, beside those.
    :param names: what connections are named after, instead of source and destination.
    """
    chance = random.Random(17)
    now = utcnow()
    jobs = [_ended(n, now - timedelta(minutes=4 * (count - n)), instances, chance) for n in range(count)]
    jobs += [_running(count + n, now, instances, chance) for n in range(running)]
    if names:
        jobs = [_renamed(job, names) for job in jobs]
    jobs = [replace(job, cursor=Cursor(EPOCH, sequence)) for sequence, job in enumerate(jobs, 1)]

    async def batches() -> AsyncIterator[Batch]:
        yield Batch(events=jobs, states=jobs)
        yield Batch(notifications=list(_notifications(jobs)))

    async def run() -> None:
        async with SQLiteStore(path) as store:
            await store.fill(EPOCH, len(jobs), batches())

    # In a thread of its own: Playwright's loop runs in this one for as long as a browser is open.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(anyio.run, run).result()


def _renamed(job: JobEvent, names: tuple[str, ...]) -> JobEvent:
    number = int((job.connection_id or "0")[-12:])
    return replace(job, names={**job.names, "connection": f"{names[number % len(names)]} {number}"})


def _job(n: int, instances: tuple[str, ...], chance: random.Random) -> dict[str, object]:
    number = min(chance.randrange(CONNECTIONS), chance.randrange(CONNECTIONS))
    workspace = number % 4
    names = {
        "workspace": f"Team {'ABCD'[workspace]}",
        "source": _SOURCES[number % 6],
        "destination": _DESTINATIONS[number % 3],
        "connection": f"{_SOURCES[number % 6]} to {_DESTINATIONS[number % 3]} {number}",
    }
    return {
        "ref": JobRef(instances[number % len(instances)], 1000 + n),
        "connection_id": f"00000000-0000-4000-8000-{number:012d}",
        "workspace_id": f"00000000-0000-4000-9000-{workspace:012d}",
        "job_type": "sync" if chance.random() < 0.95 else "clear",
        "names": names,
        "url": f"https://airbyte.example.com/connections/{number}",
        "task_url": f"https://airflow.example.com/dags/load_{number}/runs/scheduled__{n}/tasks/sync",
    }


def _ended(n: int, at: datetime, instances: tuple[str, ...], chance: random.Random) -> JobEvent:
    status = chance.choices((JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED), weights=(0.93, 0.05, 0.02))[0]
    job = _job(n, instances, chance)
    pushed = status is not JobStatus.CANCELLED and job["job_type"] == "sync" and chance.random() < 0.97
    took = round(chance.lognormvariate(6.0, 0.6), 1)
    moved = None if status is JobStatus.CANCELLED else int(chance.lognormvariate(10, 1.5))
    observed_at = at + timedelta(seconds=chance.uniform(0.01, 0.3) if pushed else chance.uniform(1, 200))
    receipt = TaskReceipt(
        received_at=observed_at + timedelta(seconds=0.02),
        waiting_since=at - timedelta(seconds=took),
        task_url=str(job["task_url"]),
    )
    return JobEvent(
        **job,  # type: ignore[arg-type]
        receipts=(receipt,) if pushed else (),
        status=status,
        previous_status=JobStatus.RUNNING,
        started_at=at - timedelta(seconds=took),
        finished_at=at.replace(microsecond=0) if pushed else at,
        observed_at=observed_at,
        origin=Origin.WEBHOOK if pushed else Origin.POLL,
        records=moved,
        bytes=None if moved is None else moved * 211,
        duration_seconds=took,
        error=chance.choice(REASONS) if status is JobStatus.FAILED else None,
    )


def _running(n: int, now: datetime, instances: tuple[str, ...], chance: random.Random) -> JobEvent:
    began = now - timedelta(seconds=chance.uniform(5, 900))
    return JobEvent(
        **_job(n, instances, chance),  # type: ignore[arg-type]
        status=JobStatus.RUNNING,
        started_at=began,
        observed_at=began + timedelta(seconds=1),
        origin=Origin.POLL,
    )


def _notifications(jobs: list[JobEvent]) -> Iterator[StoredNotification]:
    pushed = (job for job in jobs if job.origin is Origin.WEBHOOK)
    for number, job in enumerate(pushed, 1):
        unconfirmed = number % 400 == 0
        yield StoredNotification(
            id=number,
            instance=job.ref.instance,
            received_at=job.observed_at,
            kind="success" if job.status is JobStatus.SUCCEEDED else "failure",
            job_id=job.ref.job_id,
            body=f'{{"data": {{"jobId": {job.ref.job_id}}}}}'.encode(),
            outcome=Outcome.UNCONFIRMED if unconfirmed else Outcome.CONFIRMED,
            settled_at=job.observed_at + timedelta(milliseconds=9),
        )

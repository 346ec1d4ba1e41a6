"""The power goes while the store writes: see :mod:`disk` for what is left then."""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from airbyte_events.errors import StoreError
from airbyte_events.events import JobEvent, JobRef, JobStatus, Origin
from airbyte_events.store.reconcile import Verdict
from airbyte_events.store.records import Outcome
from airbyte_events.store.sqlite.store import SQLiteStore
from soak.crowd import read_all
from soak.disk import Disk
from support.stored import receipt_of

pytestmark = pytest.mark.anyio

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
WRITERS = 4


def event(job_id: int, status: JobStatus) -> JobEvent:
    return JobEvent(ref=JobRef("default", job_id), status=status, observed_at=NOON, origin=Origin.WEBHOOK)


async def work(store: SQLiteStore, disk: Disk, job_ids: range, dice: random.Random) -> None:
    """What a listener does to a store for each job; each step is marked when the store has acknowledged it."""
    for job_id in job_ids:
        body = json.dumps({"job": job_id, "text": "x" * dice.randrange(3000)}).encode()
        receipt = await receipt_of(store, body, job_id=job_id)
        disk.mark(json.dumps(["received", job_id]))
        for status in (JobStatus.RUNNING, dice.choice((JobStatus.SUCCEEDED, JobStatus.FAILED))):
            assert (await store.append([event(job_id, status)])).verdicts == [Verdict.NEW]
            disk.mark(json.dumps(["appended", job_id, status.value]))
        await store.settle({receipt.id: Outcome.CONFIRMED}, NOON)
        disk.mark(json.dumps(["settled", job_id]))
        await store.remember(f"looked_at/{job_ids[0]}", str(job_id))
        disk.mark(json.dumps(["remembered", job_ids[0], job_id]))


async def record(folder: Path, dice: random.Random, jobs: int, *, lies: bool = False) -> Disk:
    disk = Disk(lies=lies)
    async with SQLiteStore(folder / "events.db", connect=disk.connect) as store, anyio.create_task_group() as tasks:
        for writer in range(WRITERS):
            first = 1 + writer * jobs
            tasks.start_soon(work, store, disk, range(first, first + jobs), random.Random(dice.random()))
    return disk


async def missing(folder: Path, marks: list[str]) -> list[str]:
    """What was acknowledged and is not there, or is wrong, in the store that is left in a folder."""
    async with SQLiteStore(folder / "events.db") as store:
        log = await read_all(store)
        kept = {item.job_id: item.outcome for item in await store.notifications(limit=100_000)}
        remembered = {f"looked_at/{first}": await store.recall(f"looked_at/{first}") for first in _firsts(marks)}
        states = await store.states([item.ref for item in log])
    with sqlite3.connect(folder / "events.db") as connection:
        damage = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    connection.close()
    there = {json.dumps(["appended", item.ref.job_id, item.status.value]) for item in log}
    there |= {json.dumps(["received", job_id]) for job_id in kept}
    there |= {json.dumps(["settled", job_id]) for job_id, outcome in kept.items() if outcome is Outcome.CONFIRMED}
    for key, value in remembered.items():
        first = int(key.partition("/")[2])
        there |= {json.dumps(["remembered", first, upto]) for upto in range(first, int(value or 0) + 1)}
    faults = damage + [f"acknowledged and gone: {mark}" for mark in marks if mark not in there]
    if [item.cursor.sequence for item in log if item.cursor] != list(range(1, len(log) + 1)):
        faults.append("the log has gaps")
    last = {item.ref: item for item in log}
    faults += [f"{ref} is {states[ref].status} by its state" for ref in last if states[ref].status != last[ref].status]
    ends = Counter(item.ref for item in log if item.terminal)
    return faults + [f"{ref} has {count} ends" for ref, count in ends.items() if count > 1]


def _firsts(marks: list[str]) -> set[int]:
    return {told[1] for told in map(json.loads, marks) if told[0] == "remembered"}


async def lose_power(disk: Disk, folder: Path, dice: random.Random, cuts: int) -> tuple[int, list[str]]:
    """How many cuts lost or damaged something, and what."""
    points = [dice.randrange(len(disk.operations) + 1) for _ in range(cuts)]
    told: list[str] = []
    harmed = 0
    for number, (marks, files) in zip(itertools.count(), disk.power_losses(points, dice)):
        left = folder / f"left-{number}"
        left.mkdir()
        for name, content in files.items():
            (left / name).write_bytes(content)
        faults = await missing(left, marks)
        harmed += bool(faults)
        told += [f"cut {number}: {fault}" for fault in faults]
        for file in left.iterdir():
            file.unlink()
    return harmed, told


async def test_i1_power_loss(
    tmp_path: Path,
    dice: random.Random,
    rounds: Callable[[int, int], int],
    report: Callable[..., None],
) -> None:
    cuts, jobs = rounds(400, 40), rounds(150, 25)
    disk = await record(tmp_path, dice, jobs)
    harmed, faults = await lose_power(disk, tmp_path, dice, cuts)
    done = Counter(operation.what for operation in disk.operations)
    more = f"{done['write']:,} writes, {done['sync']:,} syncs"
    report("power loss, SQLite", rounds=cuts, faults=cuts, acknowledged=done["mark"], lost=harmed, more=more)
    assert not faults, "\n".join(faults[:20])


async def test_a_disk_that_lies_is_found_out(tmp_path: Path, dice: random.Random) -> None:
    """So would be a store that does not sync."""
    disk = await record(tmp_path, dice, 10, lies=True)
    try:
        harmed, _ = await lose_power(disk, tmp_path, dice, 20)
    except (StoreError, sqlite3.Error):  # what is left is no store at all
        return
    assert harmed

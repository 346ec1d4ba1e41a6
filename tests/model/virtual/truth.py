"""What must hold, whatever happened: everything is compared with what became of Airbyte's own jobs."""

from __future__ import annotations

from collections.abc import Iterable

import anyio

from airbyte_events.events import JobEvent, JobRef
from airbyte_events.simulator.models import Job
from airbyte_events.store.base import EventStore
from airbyte_events.store.records import Outcome
from model.virtual.readers import Follower, Reader
from model.virtual.stage import VirtualStage
from model.virtual.triggerer import Wait

WITHIN = 720.0
"""Seconds in which a waiter ends at the latest after its job has, while Airbyte answers: the hub looks every 10 minutes
(and a tenth) even when all seems well, and 60 s are the longest that a request is put off after failures."""

FOUND_WITHIN = 1050.0
"""Seconds in which an end is in the log at the latest though nobody waits for it, while Airbyte answers: one that
failed to list jobs is asked for lists again after 10 minutes, and looked at every 5 (and a tenth), put off as above."""

MARGIN = 2.0
"""Seconds around the beginning of a follower in which an end may or may not be told."""


def check_status(event: JobEvent, job: Job) -> None:
    """I3: an end that is told is the job's end."""
    assert job.terminal, f"{event.ref} is told to be {event.status.value}, but it is {job.status}"
    assert event.status.value == job.status, f"{event.ref} is told to be {event.status.value}, not {job.status}"


def check_waits(waits: Iterable[Wait], ended: dict[int, float], answered_since: float) -> None:
    """I4: nobody waits for longer than the bound after the job has ended, while Airbyte answers."""
    for wait in waits:
        if wait.ended_at is not None:
            assert isinstance(wait.result, JobEvent), wait.result
            check_status(wait.result, wait.job)
        elif wait.job.id in ended and not wait.abandoned:
            late = anyio.current_time() - max(ended[wait.job.id], wait.began_at, answered_since)
            assert late <= WITHIN, f"somebody still waits for job {wait.job.id}, {late:.0f} s after its end"


async def read_log(store: EventStore) -> list[JobEvent]:
    events: list[JobEvent] = []
    position, head = 0, await store.head()
    while position < head:
        page = await store.read(position)
        events += page.events
        position = page.position
    return events


def check_log(events: list[JobEvent], jobs: dict[int, Job]) -> None:
    """I2, I3: one true end for each job, and nothing behind it."""
    assert [event.cursor.sequence for event in events if event.cursor] == list(range(1, len(events) + 1))
    ended: set[JobRef] = set()
    for event in events:
        assert event.ref not in ended, f"{event.ref} is told again after its end: {event.status.value}"
        assert event.ref.job_id in jobs, f"{event.ref} is told, but there is no such job"
        if event.terminal:
            ended.add(event.ref)
            check_status(event, jobs[event.ref.job_id])


def check_reader(reader: Reader, logs: dict[str, list[JobEvent]]) -> None:
    """I5: everything behind its cursor, once, in order."""
    assert reader.faults == []
    for stretch in reader.stretches:
        expected = logs[stretch.epoch][stretch.after : stretch.position]
        assert [event.cursor for event in stretch.events] == [event.cursor for event in expected]
        assert [(event.ref, event.status) for event in stretch.events] == [(e.ref, e.status) for e in expected]


def lacking(follower: Follower, stage: VirtualStage) -> set[int]:
    """The ends that it has to be told, and was not told."""
    wanted = follower.wanted.connection_ids
    due = {
        job.id
        for job in stage.airbyte.jobs
        if (not wanted or job.connection.id in wanted)
        and stage.airbyte.ended.get(job.id, -1.0) > follower.began_at + MARGIN
    }
    return due - {event.ref.job_id for event in follower.told}


def check_follower(follower: Follower, stage: VirtualStage) -> None:
    told = [event.ref.job_id for event in follower.told]
    assert len(told) == len(set(told)), f"told more than once: {told}"
    for event in follower.told:
        check_status(event, stage.airbyte.sim.world.jobs[event.ref.job_id])


async def check_inbox(stage: VirtualStage, *, durable: bool) -> None:
    """I1: what was answered with a 2xx is there, and nothing waits for ever."""
    kept = []
    before = None
    while page := await stage.listener.store.notifications(limit=500, before=before):
        kept += page
        before = page[-1].id
    assert not [each for each in kept if each.outcome is Outcome.PENDING]
    if durable:
        bodies = {each.body for each in kept}
        assert all(body in bodies for body in await stage.acknowledged())

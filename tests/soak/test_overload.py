"""More than it can take: it stays small, alive and right, and who behaves well notices little."""

from __future__ import annotations

from datetime import timedelta

import anyio
import anyio.lowlevel
import anyio.to_process
import anyio.to_thread
import pytest

from airbyte_events.events import Cursor, JobRef
from airbyte_events.feed.client import FeedClient
from airbyte_events.listener.http.receiver import MOST_AT_ONCE
from airbyte_events.simulator import Fault, Script, Simulator
from airbyte_events.simulator.models import Job
from airbyte_events.store.base import EventStore
from soak import flood
from soak.crowd import until
from soak.listening import API_TOKEN, Listener
from soak.scene import Run
from soak.streams import Streams
from soak.vitals import Vitals, watched

pytestmark = pytest.mark.anyio

FLOOD_SECONDS = 60.0
CONNECTIONS = MOST_AT_ONCE + 300


def running(airbyte: Simulator, count: int, *, since: timedelta = timedelta(0)) -> list[Job]:
    """Jobs that run until they are told to end."""
    world = airbyte.world
    jobs = [world.start_job(world.add_connection(Script.hanging())) for _ in range(count)]
    for job in jobs:
        job.updated_at -= since
    return jobs


async def bodies_of(store: EventStore) -> set[bytes]:
    kept: set[bytes] = set()
    before = None
    while page := await store.notifications(limit=1000, before=before):
        before = page[-1].id
        kept |= {stored.body for stored in page}
    return kept


def end_unannounced(airbyte: Simulator, jobs: list[Job]) -> None:
    url = airbyte.workspace.webhook_url("success")
    airbyte.workspace.set_webhook(None)
    for job in jobs:
        airbyte.world.end_job(job, "succeeded")
    airbyte.workspace.set_webhook(url)


async def test_i1_i6_a_flood_of_webhooks(run: Run, soak: bool) -> None:
    """True ones over and over, tests, and such as are of no job, over more connections than webhooks are taken on."""
    scene = run.scene()
    jobs = running(run.airbyte, 3_000 if soak else 300)
    end_unannounced(run.airbyte, jobs)
    scene.crowd.jobs += jobs
    true = flood.announcements(run.airbyte, jobs)
    others = [b'{"text": "Hello World! %d"}' % number for number in range(len(true))]
    bodies = [*true, *others, *run.dice.choices(true, k=2 * len(true))]
    run.dice.shuffle(bodies)
    requests = flood.notifications(scene.listener.webhooks, bodies)
    outcome = flood.Outcome()
    vitals = Vitals()

    async def overwhelm(listener: Listener) -> None:
        nonlocal outcome, vitals
        async with watched(listener) as vitals:
            outcome = await anyio.to_process.run_sync(
                flood.run, ("127.0.0.1", listener.port), requests, CONNECTIONS, FLOOD_SECONDS
            )

    verdict = await scene.play(overwhelm, each_second=10)
    figures = verdict.figures | {
        "sent": verdict.sent + len(requests),
        "acknowledged": verdict.acknowledged + len(outcome.acknowledged),
    }
    run.report("flood", rounds=1, **figures, more=f"{outcome}; {vitals}; {scene.crowd}")
    verdict.check()
    assert outcome.statuses.keys() <= {200, 202, 429, 503}, outcome
    assert outcome.acknowledged
    async with scene.store() as store:
        kept = await bodies_of(store)
    assert not [number for number in outcome.acknowledged if bodies[number] not in kept]
    vitals.check(mebibytes=200)


async def test_i4_jobs_that_airbyte_fails_over_hold_up_nobody(run: Run, soak: bool) -> None:
    """Every read of them answers 500, for ever. All are watched, the ends of half of them announced, and hubs wait for
    some. Among them others run and end, some of them unannounced.
    """
    count, ends = 200 if soak else 20, run.rounds(30, 3)
    scene = run.scene()
    crowd = scene.crowd
    rotten = running(run.airbyte, count)
    for job in rotten:
        run.airbyte.faults.add(Fault(kind="status", status=500, route=f"/jobs/{job.id}"))
    end_unannounced(run.airbyte, rotten[::2])
    for job in rotten:
        # No look at what has changed tells of them.
        job.updated_at -= timedelta(hours=2)
    crowd.rotten = {job.id for job in rotten}
    told = flood.notifications(scene.listener.webhooks, flood.announcements(run.airbyte, rotten[::2]))
    waits: list[float] = []

    async def mix(listener: Listener) -> None:
        await FeedClient(run.http, listener.url, API_TOKEN).watch([JobRef("default", job.id) for job in rotten[:100]])
        outcome = await anyio.to_thread.run_sync(flood.run, ("127.0.0.1", listener.port), told, 10, 20)
        assert len(outcome.acknowledged) == len(told), outcome
        async with crowd.hub() as hub, crowd.hub(grace=1) as other, anyio.create_task_group() as tasks:
            for job in rotten[:10]:
                tasks.start_soon(hub.wait, job.id)
            for number in range(ends):
                (job,) = running(run.airbyte, 1)
                crowd.jobs.append(job)
                crowd.wait(tasks, (hub, other)[number % 2], job.id)
                await anyio.sleep(run.dice.uniform(0, 1))
                began = anyio.current_time()
                end_unannounced(run.airbyte, [job])
                await until(lambda job=job: job.id in crowd.results, "a waiter")  # type: ignore[misc]
                waits.append(anyio.current_time() - began)
            tasks.cancel_scope.cancel()

    verdict = await scene.play(mix, each_second=20)
    reads = sum(call.job_id in crowd.rotten for call in run.airbyte.traffic.recent("GET /jobs/{id}"))
    more = f"{count} always answer 500, read {reads:,} times; an end is known in {max(waits):.1f} s at most; {crowd}"
    run.report("jobs that Airbyte fails over", rounds=ends, faults=count, **verdict.figures, more=more)
    verdict.check()
    assert reads
    assert max(waits) < 15, waits


@pytest.mark.long
async def test_i6_watched_jobs_and_streams_that_never_read(run: Run, soak: bool) -> None:
    """Some of the jobs are waited for by a hub, some end, and half of these ends are announced."""
    count, ends = (10_000, 3_000) if soak else (300, 100)
    scene = run.scene()
    crowd = scene.crowd
    # Their latest change is too long ago for a look at what has changed.
    watched_jobs = running(run.airbyte, count, since=timedelta(hours=2))
    jobs = run.dice.sample(watched_jobs, ends)
    crowd.jobs += jobs
    vitals = Vitals()
    faults: list[str] = []
    begins = await scene.fill(4)

    async def watch(listener: Listener) -> None:
        nonlocal vitals
        async with (
            crowd.hub() as hub,
            anyio.create_task_group() as tasks,
            Streams(listener.port, Cursor(scene.first.epoch, begins), 20) as reading,
            Streams(listener.port, scene.first, 20, stalled=True) as stalled,
            watched(listener) as vitals,
        ):
            client = FeedClient(run.http, listener.url, API_TOKEN)
            for start in range(0, count, 500):
                refs = [JobRef("default", job.id) for job in watched_jobs[start : start + 500]]
                assert not (await client.watch(refs)).unknown
            for job in jobs[:: max(1, ends // 500)]:
                crowd.wait(tasks, hub, job.id)
            end_unannounced(run.airbyte, jobs[::2])
            for job in jobs[1::2]:
                run.airbyte.world.end_job(job, "failed")
                await anyio.lowlevel.checkpoint()
            head = await scene.until_told(jobs)
            await until(lambda: crowd.results.keys() >= crowd.waited, "all waiters of what ended")
            for stream in stalled.streams:
                stream.transport.resume_reading()
            for streams, first in ((reading, begins), (stalled, 0)):
                await streams.until_seen(head)
                for stream in streams.streams:
                    upto = [sequence for sequence in stream.seen if sequence <= head]
                    # One that did not read for a minute may have been left; then it would resume where it is.
                    complete = len(upto) == head - first or (streams is stalled and stream.ended.is_set())
                    if not complete or upto != list(range(first + 1, first + len(upto) + 1)):
                        faults.append(f"a stream was told {len(upto)} of {head - first} events")

    verdict = await scene.play(watch, each_second=2)
    asked = run.airbyte.traffic.counts
    more = (
        f"{count:,} jobs watched, {ends:,} end; {asked['GET /jobs']:,} lists, {asked['GET /jobs/{id}']:,} reads;"
        f" 20 streams that stall; {vitals}"
    )
    run.report("watched jobs, stalled streams", rounds=1, **verdict.figures, more=more)
    verdict.check()
    assert not faults, faults[:5]
    vitals.check(mebibytes=300)


async def test_i5_every_stream_sees_all(run: Run, soak: bool) -> None:
    """In two phases: so many jobs end, then each stream is shown to have been told of every one."""
    count, ends, stalled = (1_000, 300, 50) if soak else (100, 50, 10)
    scene = run.scene()
    jobs = running(run.airbyte, ends)
    scene.crowd.jobs += jobs
    vitals = Vitals()
    seen: list[list[int]] = []
    took = 0.0

    async def fan_out(listener: Listener) -> None:
        nonlocal vitals, took
        async with (
            Streams(listener.port, Cursor(scene.first.epoch, begins), count - stalled) as streams,
            Streams(listener.port, scene.first, stalled, stalled=True),
            watched(listener) as vitals,
        ):
            began = anyio.current_time()
            for job in jobs:
                run.airbyte.world.end_job(job, run.dice.choice(("succeeded", "failed")))
                await anyio.lowlevel.checkpoint()
            await streams.until_seen(await scene.until_told(jobs))
            took = anyio.current_time() - began
            seen.extend(stream.seen for stream in streams.streams)

    begins = await scene.fill(4)
    verdict = await scene.play(fan_out, each_second=2)
    told = sum(map(len, seen))
    complete = [each == list(range(begins + 1, begins + len(each) + 1)) and len(each) >= ends for each in seen]
    figures = verdict.figures | {"seen": verdict.seen + told, "lost": verdict.lost + complete.count(False)}
    more = f"{count:,} streams, {stalled} never read; {told / took:,.0f} told a second; {vitals}"
    run.report("fan-out", rounds=1, **figures, more=more)
    verdict.check()
    assert all(complete)
    vitals.check(mebibytes=250)

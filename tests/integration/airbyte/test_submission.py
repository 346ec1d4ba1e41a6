"""Jobs are started at most once, whatever runs and whatever gets lost: against a simulated Airbyte on a real socket."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import anyio
import httpx
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte import AirbyteClient, Job
from airbyte_events.airbyte.submission import How, find_created, submit, take_snapshot
from airbyte_events.errors import Conflict, Forbidden, MaybeStarted, NotSent
from airbyte_events.simulator import Script
from airbyte_events.simulator.scripts import Phase
from support.loops import anyio_backend as anyio_backend
from support.servers import ScriptedServer

from .conftest import Scene, staged

pytestmark = pytest.mark.anyio

POLICIES = ("attach", "wait", "cancel", "fail", "skip")


async def test_a_job_of_an_idle_connection_is_started_and_owned(scene: Scene) -> None:
    scene.history(1)
    submission = await scene.submit()
    assert (submission.how, submission.job.job_id, submission.owned) == (How.STARTED, 2, True)


# The table of docs/tasks.md, row by row.
@pytest.mark.parametrize("status", ["running", "pending"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("running", ["sync", "reset", "clear", "refresh"])
@pytest.mark.parametrize("wanted", ["sync", "reset", "clear"])
async def test_what_runs_is_attached_to_or_in_the_way_and_never_cancelled(
    scene: Scene, wanted: str, running: str, policy: str, status: str
) -> None:
    """Also before its first attempt, when Airbyte refuses no second job, and for a clear, when it refuses none."""
    active = scene.start(running, script=Script.hanging(status))
    submission = await scene.submit(wanted, policy)
    attaches = policy == "attach" and (wanted == running or {wanted, running} <= {"reset", "clear"})
    assert (submission.how, submission.owned) == (How.ATTACHED if attaches else How.BLOCKED, False)
    assert submission.job.job_id == active.id
    assert active.status == status
    assert len(scene.sim.world.jobs) == 1


@pytest.mark.parametrize("wanted", ["sync", "clear"])
@pytest.mark.parametrize("status", ["running", "pending"])
async def test_a_refresh_that_an_older_airbyte_leaves_out_of_its_lists_is_in_the_way_too(
    wanted: str, status: str
) -> None:
    async with staged(release="2.0.0") as scene:
        refresh = scene.start("refresh", script=Script.hanging(status))
        submission = await scene.submit(wanted)
        assert (submission.how, submission.job.job_id) == (How.BLOCKED, refresh.id)
        assert refresh.status == status


@pytest.mark.parametrize("job_type", ["sync", "reset", "clear"])
@pytest.mark.parametrize("ended", [False, True])
async def test_a_job_whose_creation_got_no_response_is_found(scene: Scene, job_type: str, ended: bool) -> None:
    scene.history(3)
    scene.connection.script = Script(phases=(Phase(status="running", seconds=0.0),)) if ended else Script.hanging()
    scene.fault("reset", route="POST /jobs", after=True)
    submission = await scene.submit(job_type)
    assert (submission.how, submission.job.job_id, submission.owned) == (How.FOUND, 4, True)
    assert scene.requests("POST /jobs") == 1


async def test_a_lost_response_is_looked_for_by_job_ids_though_lists_are_slow(scene: Scene) -> None:
    """No clock counts: the list is answered after the job has completed."""
    scene.history(1)
    scene.connection.script = Script.lasting(0.4)
    scene.fault("reset", route="POST /jobs", after=True)
    before = await take_snapshot(scene.airbyte, scene.connection_id, "sync")
    scene.fault("slow", route="GET /jobs", delay=0.8)
    submission = await scene.submit(before=before)
    assert (submission.how, submission.job.status.value) == (How.FOUND, "succeeded")
    assert scene.requests("POST /jobs") == 1


async def test_a_snapshot_has_the_usual_duration_of_such_jobs(scene: Scene) -> None:
    assert (await take_snapshot(scene.airbyte, scene.connection_id, "sync")).usual_seconds is None
    for job_type, status, minutes in [
        *[("sync", "succeeded", 9)] * 9,
        *[("sync", "succeeded", each) for each in [2] * 9 + [4] + [8] * 10],
        ("sync", "failed", 60),
        ("reset", "succeeded", 30),
    ]:
        job = scene.start(job_type, created_at=utcnow() - timedelta(minutes=minutes))
        scene.sim.world.end_job(job, status)
    for job_type, minutes in [("sync", (4 + 8) // 2), ("clear", 30)]:
        usual = (await take_snapshot(scene.airbyte, scene.connection_id, job_type)).usual_seconds
        assert usual == pytest.approx(60 * minutes, abs=5)


async def test_could_not_fulfill_is_a_lost_response_and_no_disabled_connection(scene: Scene) -> None:
    scene.fault("status", status=409, problem="state-conflict", after=True, count=1, route="POST /jobs")
    submission = await scene.submit()
    assert (submission.how, submission.job.job_id) == (How.FOUND, 1)
    assert scene.requests("POST /jobs") == 1


async def test_no_response_is_not_no_job_and_starts_no_other(scene: Scene) -> None:
    before = await take_snapshot(scene.airbyte, scene.connection_id, "sync")
    scene.fault("reset", route="POST /jobs", after=True)
    scene.fault("status", status=503, route="GET /jobs")
    with pytest.raises(MaybeStarted, match="a job may have been started"):
        await scene.submit(before=before, until=time.time() + 0.5)
    assert scene.requests("POST /jobs") == 1


async def test_what_got_no_response_is_asked_until_there_is_one(scene: Scene) -> None:
    before = await take_snapshot(scene.airbyte, scene.connection_id, "sync")
    scene.fault("reset", route="POST /jobs", after=True)
    # More often than one request is repeated.
    scene.fault("status", status=503, route="GET /jobs", count=5)
    submission = await scene.submit(before=before)
    assert submission.how is How.FOUND
    assert scene.requests("POST /jobs") == 1


async def test_a_connection_that_is_disabled_is_said_to_be_at_once(scene: Scene) -> None:
    scene.connection.active = False
    with pytest.raises(Conflict, match="enabled in Airbyte"):
        await scene.submit()
    assert scene.requests("POST /jobs") == 1


async def test_a_state_conflict_while_a_job_runs_is_that_job_and_no_disabled_connection(
    server: ScriptedServer,
) -> None:
    """As older releases answer; here the job has begun since the connection's jobs were listed."""
    running = {"jobId": 5, "status": "running", "jobType": "sync", "connectionId": "c"}
    problem = {"title": "state-conflict", "type": "error:reference#409-state-conflict", "detail": "State conflict"}
    jobs = "/api/public/v1/jobs"
    server.on(f"GET {jobs}", server.reply(200, {"data": []}), server.reply(200, {"data": [running]}))
    server.on(f"POST {jobs}", server.reply(409, problem))
    async with httpx.AsyncClient() as http:
        submission = await submit(AirbyteClient(http, server.url), "c")
    assert (submission.how, submission.job.job_id, submission.owned) == (How.ATTACHED, 5, False)
    assert server.count(f"POST {jobs}") == 1


async def test_a_refusal_that_created_nothing_is_no_doubt(scene: Scene) -> None:
    scene.fault("status", status=403, route="POST /jobs")
    with pytest.raises(Forbidden):
        await scene.submit()
    async with httpx.AsyncClient() as http:
        nobody = AirbyteClient(http, "http://127.0.0.1:9", attempts=1)
        with pytest.raises(NotSent):
            await submit(nobody, scene.connection_id)


async def test_a_refusal_after_a_lost_response_is_a_doubt(scene: Scene) -> None:
    scene.fault("reset", route="POST /jobs", count=1)
    scene.fault("status", status=403, route="POST /jobs")
    with pytest.raises(MaybeStarted, match="403"):
        await scene.submit(delays=(0.0, 0.01))


@pytest.mark.parametrize("release", ["orderBy", "orderBy fails", "orderBy ignored"])
@pytest.mark.parametrize("jobs", [0, 1, 99, 100, 101, 200, 450, 2050])
async def test_the_newest_jobs_are_found_in_a_bounded_number_of_requests(release: str, jobs: int) -> None:
    async with staged() as scene:
        scene.history(jobs)
        if release == "orderBy fails":
            scene.fault("broken-list", parameter="orderBy")
        if release == "orderBy ignored":
            scene.http.event_hooks["request"].append(without_order)
        found = await scene.airbyte.newest_jobs(scene.connection_id)
        assert [job.job_id for job in found] == list(range(jobs, max(0, jobs - 100), -1))[: len(found)]
        assert bool(found) is (jobs > 0)
        assert scene.requests("GET /jobs") <= (1 if release == "orderBy" else 16)


async def without_order(request: httpx.Request) -> None:
    """An Airbyte that passes over ``orderBy``."""
    request.url = request.url.copy_remove_param("orderBy")


async def test_ten_thousand_jobs_of_a_connection_cost_no_more_requests_than_one(scene: Scene) -> None:
    scene.history(10_050)
    active = scene.start(created_at=utcnow() - timedelta(hours=30))
    submission = await scene.submit("sync")
    assert submission.job.job_id == active.id
    assert scene.requests("GET /jobs") == 1


async def test_of_the_jobs_that_came_later_the_first_of_the_type_is_the_one_that_was_created(scene: Scene) -> None:
    scene.history(2)
    for job_type in ("reset", "sync", "sync"):
        scene.sim.world.end_job(scene.start(job_type), "succeeded")

    async def found(job_type: str, after_id: int) -> int | None:
        job: Job | None = await find_created(scene.airbyte, scene.connection_id, job_type, after_id, (0.0,))
        return None if job is None else job.job_id

    assert [await found("sync", 2), await found("clear", 2), await found("clear", 3), await found("sync", 5)] == [
        4,
        3,
        None,
        None,
    ]


async def test_a_clear_whose_response_is_lost_again_and_again_is_started_once(scene: Scene) -> None:
    scene.connection.script = Script.lasting(0.2)
    scene.fault("reset", route="POST /jobs", after=True)
    with anyio.fail_after(30):
        assert (await scene.submit("clear")).how is How.FOUND
    assert scene.requests("POST /jobs") == 1
    assert [job.type for job in scene.sim.world.jobs.values()] == ["reset"]


def test_the_table_in_the_docs_is_the_one_that_is_tested() -> None:
    page = (Path(__file__).parents[3] / "docs/tasks.md").read_text()
    rest = "cancels that one, then starts | fails | skips |"
    for row in (
        f"| a sync | a sync | waits for that one | waits, then starts | {rest}",
        f"| a sync | a reset, clear or refresh | waits, then starts | waits, then starts | {rest}",
        f"| a reset or clear | a reset or clear | waits for that one | waits, then starts | {rest}",
        f"| a reset or clear | a sync or refresh | waits, then starts | waits, then starts | {rest}",
        f"| a refresh | any job | waits, then starts | waits, then starts | {rest}",
    ):
        assert row in page, json.dumps(row)

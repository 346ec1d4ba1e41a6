"""``airbyte-events trigger``: starts a sync once, and waits on push."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import anyio
import pytest

from airbyte_events.simulator import Fault, Script
from support.command_stage import CommandStage, Done

pytestmark = pytest.mark.anyio


def lasting(stage: CommandStage, seconds: float, end: str = "succeeded") -> None:
    stage.connection.script = replace(Script.lasting(seconds), end=end)


async def test_starts_and_leaves(stage: CommandStage) -> None:
    done = await stage.run("trigger", stage.connection.id)
    assert (done.code, done.out) == (0, "job default/1 of Orders: started\n")
    assert [job.status for job in stage.connection.jobs] != []


async def test_takes_what_runs_already(stage: CommandStage) -> None:
    job = stage.start()
    # An attempt of it has begun: Airbyte would refuse.
    stage.sim.world.play(job, Script.hanging())
    while not job.attempts:
        await stage.run("jobs")
    done = await stage.run("trigger", "Orders", "--json")
    assert done.code == 0
    assert json.loads(done.out) == {
        "instance": "default",
        "job_id": job.id,
        "connection_id": stage.connection.id,
        "job_type": "sync",
        "status": "running",
        "how": "attached",
    }
    assert "was active already" in done.err
    assert len(stage.connection.jobs) == 1


@pytest.mark.parametrize(("end", "code"), [("succeeded", 0), ("failed", 1)])
async def test_waits_on_push(stage: CommandStage, end: str, code: int) -> None:
    stage.announce()
    lasting(stage, 1.0, end)
    done = await stage.run("trigger", "Orders", "--wait")
    assert done.code == code
    assert re.search(rf"^job default/1 of Orders: {end} ", done.out, re.MULTILINE)
    lasting(stage, 1.0)
    event = json.loads((await stage.run("trigger", "Orders", "--wait", "--json")).out)
    assert (event["status"], event["origin"]) == ("succeeded", "webhook")


async def test_a_cancelled_job_is_no_success(stage: CommandStage) -> None:
    stage.announce()
    async with stage.started("trigger", "Orders", "--wait") as trigger:
        await trigger.line()
        await trigger.said("waiting for")
        stage.end(stage.connection.jobs[0], "cancelled")
        assert await trigger.ended() == 1


async def test_knows_how_long_it_usually_takes(stage: CommandStage) -> None:
    stage.announce()
    lasting(stage, 1.0)
    await stage.run("trigger", "Orders", "--wait")
    assert "which usually takes 1.0 s" in (await stage.run("trigger", "Orders", "--wait")).err


async def test_shows_progress_at_a_terminal(stage: CommandStage) -> None:
    stage.announce()
    lasting(stage, 1.0)  # Airbyte has whole seconds
    await stage.run("trigger", "Orders", "--wait")
    lasting(stage, 3600)
    progress = rb"\S+ \S+ of usually \d+\.\d s, (.+, )?subscribed to the listener"
    code, seen = await stage.at_terminal("trigger", "Orders", "--wait", ends_at=progress)
    assert code == 0
    assert "\x1b[32msucceeded" in seen
    assert "━" in seen


async def test_shows_the_records_so_far_at_a_terminal(stage: CommandStage) -> None:
    stage.announce()
    lasting(stage, 0.5)
    await stage.run("trigger", "Orders", "--wait")
    lasting(stage, 3600)
    await stage.at_terminal("trigger", "Orders", "--wait", ends_at=rb"\d+ records of usually 1,000, ")
    # One line, also of a narrow terminal.
    _, seen = await stage.at_terminal("trigger", "Orders", "--wait", ends_at="…".encode(), COLUMNS="70")
    assert "━" in seen
    assert seen.count("\x1b[1A") <= 1


async def test_waits_without_a_listener(stage: CommandStage) -> None:
    await stage.leave()
    lasting(stage, 1.0)
    done = await stage.run("trigger", "Orders", "--wait", LISTENER_TOKEN=None, POLL_INTERVAL="0.2")
    assert done.code == 0
    assert "polling Airbyte every few seconds" in done.err


async def test_does_not_wait_for_a_listener_that_is_gone(stage: CommandStage) -> None:
    await stage.leave()
    lasting(stage, 1.0)
    # A task's triggerer gives it 30 s to come back.
    with anyio.fail_after(30):
        done = await stage.run("trigger", "Orders", "--wait", POLL_INTERVAL="0.2")
    assert done.code == 0
    assert "the listener's feed is down" in done.err


async def test_gives_up_when_the_time_is_up(stage: CommandStage) -> None:
    done = await stage.run("trigger", "Orders", "--wait", "--timeout", "1s")
    assert done.code == 3
    assert "timed out (--timeout): job 1 is " in done.err
    assert "it keeps running: airbyte-events jobs show default/1" in done.err
    assert not stage.connection.jobs[0].terminal


async def test_ctrl_c_leaves_the_sync_running(stage: CommandStage) -> None:
    async with stage.started("trigger", "Orders", "--wait") as trigger:
        await trigger.line()
        await trigger.said("waiting for")
        assert await trigger.interrupted() == 130
    assert "it keeps running: airbyte-events jobs show default/1" in trigger.err.read_text()
    assert "Abort" not in trigger.err.read_text()
    assert not stage.connection.jobs[0].terminal


async def test_says_what_is_missing(stage: CommandStage) -> None:
    done = await stage.run("trigger", "Orders", AIRBYTE_URL=None, CLIENT_ID=None, CLIENT_SECRET=None)
    assert done.code == 2
    assert done.err.startswith("airbyte-events: AIRBYTE_EVENTS_AIRBYTE_URL: not set, though the command starts")


async def failed(stage: CommandStage, *args: str) -> Done:
    done = await stage.run("trigger", *args)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    return done


async def test_errors_are_one_line(stage: CommandStage) -> None:
    assert "Airbyte has no connection named 'Invoices'" in (await failed(stage, "Invoices")).err
    assert "404" in (await failed(stage, "00000000-0000-0000-0000-000000000000")).err
    stage.connection.active = False
    assert "is connection" in (await failed(stage, "Orders")).err
    stage.sim.add_fault(Fault(kind="status", status=401))
    assert "airbyte-events doctor checks" in (await failed(stage, "Orders")).err
    assert (await stage.run("trigger", "Orders", "--timeout", "1s")).code == 2


async def test_a_refresh(stage: CommandStage) -> None:
    args = ("--job-type", "refresh", "--refresh-mode", "truncate", "--stream", "orders", "--json")
    done = await stage.run("trigger", "Orders", *args)
    assert (done.code, json.loads(done.out)["job_type"]) == (0, "refresh")
    assert stage.connection.jobs[0].refreshed == [{"name": "orders", "namespace": "public"}]
    assert (await stage.run("trigger", "Orders", "--stream", "orders")).code == 2
    stage.sim.world.end_job(stage.connection.jobs[0], "succeeded")
    stage.sim.add_fault(Fault(kind="status", status=404, route="POST /connections/refresh"))
    assert "starts no refresh for this client" in (await failed(stage, "Orders", "--job-type", "refresh")).err

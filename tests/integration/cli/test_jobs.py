"""``airbyte-events jobs`` and ``replay``."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx
import pytest

from airbyte_events._utils.times import parse_time, utcnow
from airbyte_events.simulator import Script
from airbyte_events.simulator.models import Job
from support.command_stage import API_TOKEN, CommandStage
from support.listener import bearer

pytestmark = pytest.mark.anyio

HEADINGS = ["JOB", "STATUS", "TYPE", "CONNECTION", "STARTED", "COMPLETED", "DURATION", "RECORDS", "DETECTED BY"]


async def test_is_plain_columns_in_a_pipe(stage: CommandStage) -> None:
    stage.announce()
    job = stage.end(stage.start(), "failed")
    await stage.settled(job)
    done = await stage.run("jobs")
    assert (done.code, done.err) == (0, "")
    heading, line = done.out.splitlines()
    assert re.split(" {2,}", heading) == HEADINGS
    assert re.match(rf"default/{job.id} +failed +sync +Orders +\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line)
    assert line.index("failed") == heading.index("STATUS")
    assert "\x1b" not in done.out


async def test_is_a_coloured_table_at_a_terminal(stage: CommandStage) -> None:
    stage.announce()
    job = stage.end(stage.start(), "failed")
    await stage.settled(job)
    code, seen = await stage.at_terminal("jobs")
    assert code == 0
    assert "\x1b[31mfailed" in seen
    assert "─" in seen
    code, seen = await stage.at_terminal("jobs", NO_COLOR="1")
    assert code == 0
    assert "failed" in seen
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", seen)


async def test_fits_a_narrow_terminal_and_cuts_nothing_off(stage: CommandStage) -> None:
    stage.connection.name = "orders-of-all-shops-in-one-long-name-without-spaces"
    job = stage.end(stage.start())
    await stage.settled(job)
    _, seen = await stage.at_terminal("jobs", COLUMNS="50", NO_COLOR="1")
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", seen).splitlines()]
    assert all(len(line) <= 50 for line in lines)
    assert f"default/{job.id}" in lines[2]
    assert "succeeded" in lines[2]
    assert stage.connection.name in "".join(line.split()[-1] for line in lines[2:])


async def test_is_plain_in_a_pipe_of_a_build_that_forces_colours(stage: CommandStage) -> None:
    await stage.settled(stage.end(stage.start()))
    done = await stage.run("jobs", FORCE_COLOR="1", COLUMNS="40")
    assert "\x1b" not in done.out
    assert "  Orders  " in done.out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
async def test_an_output_that_can_not_be_written_is_one_line(stage: CommandStage) -> None:
    with Path("/dev/full").open("wb") as full:  # noqa: ASYNC230
        async with stage.started("jobs", stdout=full.fileno()) as jobs:
            assert await jobs.ended() == 1
    assert jobs.err.read_text() == "airbyte-events: the output can't be written: No space left on device\n"


async def test_say_how_fresh_they_are(stage: CommandStage) -> None:
    job = stage.end(stage.start())
    await stage.settled(job)
    assert re.search(r"default: as of \S+Z, [\d.]+ m?s ago", (await stage.at_terminal("jobs"))[1])
    assert re.search(r"^as of +\S+Z, [\d.]+ m?s ago$", (await stage.run("jobs", "show", str(job.id))).out, re.MULTILINE)
    listed = json.loads((await stage.run("jobs", "--json")).out)["as_of"]
    shown = json.loads((await stage.run("jobs", "show", str(job.id), "--json")).out)["as_of"]
    assert set(listed) == {"default"}
    times = [parse_time(listed["default"]), parse_time(shown), utcnow()]
    assert times == sorted(filter(None, times))


async def test_pages(stage: CommandStage) -> None:
    stage.announce()
    jobs = [stage.end(stage.start()) for _ in range(3)]
    for job in jobs:
        await stage.settled(job)
    first = json.loads((await stage.run("jobs", "--limit", "2", "--json")).out)
    rest = json.loads((await stage.run("jobs", "--limit", "2", "--before", first["next"], "--json")).out)
    assert sorted(each["job_id"] for page in (first, rest) for each in page["jobs"]) == [job.id for job in jobs]
    assert rest["next"] is None
    assert json.loads((await stage.run("jobs", "--active", "--json")).out)["jobs"] == []


async def test_of_a_connection_by_its_name(stage: CommandStage) -> None:
    stage.announce()
    orders = stage.end(stage.start())
    twins = [stage.sim.world.add_connection(stage.connection.script, name="Invoices") for _ in range(2)]
    invoices = [stage.end(stage.start(each)) for each in twins]
    for job in (orders, *invoices):
        await stage.settled(job)

    async def listed(*names: str) -> list[int]:
        done = await stage.run("jobs", "--json", *(word for name in names for word in ("--connection", name)))
        return sorted(job["job_id"] for job in json.loads(done.out)["jobs"])

    assert await listed("Orders") == await listed(stage.connection.id.upper()) == [orders.id]
    assert await listed("Orders", twins[0].id) == sorted([orders.id, invoices[0].id])
    unknown = await stage.run("jobs", "--connection", "Ordres")
    assert (unknown.code, unknown.out) == (1, "")
    assert "knows no connection named 'Ordres': the closest are 'Orders', 'Invoices'" in unknown.err
    several = (await stage.run("jobs", "--connection", "Invoices")).err
    assert "knows 2 connections named 'Invoices': write the id of one, or its --instance: " in several
    assert all(f"{each.id} (of default)" in several for each in twins)


async def test_a_connection_is_called_as_its_last_job_says(stage: CommandStage) -> None:
    stage.announce()
    await stage.settled(stage.end(stage.start()))
    stage.connection.name = "Sales"
    last = stage.end(stage.start())
    await stage.settled(last)
    assert f"default/{last.id} " in (await stage.run("jobs", "--connection", "Sales")).out
    assert "the closest are" not in (old := await stage.run("jobs", "--connection", "Orders")).out
    assert "knows no connection named 'Orders'" in old.err


async def test_show_tells_where_each_piece_came_from(stage: CommandStage) -> None:
    stage.announce()
    job = stage.end(stage.start(), "failed")
    await stage.settled(job)
    done = await stage.run("jobs", "show", str(job.id))
    assert done.code == 0
    assert re.search(r"^reason +Something failed", done.out, re.MULTILINE)
    assert "webhook, confirmed by the API" in done.out
    assert re.search(r"^\S+Z +webhook +notification 1 received: failure", done.out, re.MULTILINE)
    assert re.search(r"^\S+Z +confirmed +notification 1 processed", done.out, re.MULTILINE)
    told = json.loads((await stage.run("jobs", "show", f"default/{job.id}", "--json")).out)
    assert (told["job"]["status"], told["notification"]["id"]) == ("failed", 1)


async def test_show_tells_which_tasks_received_the_completion(stage: CommandStage) -> None:
    job = stage.end(stage.start())
    await stage.settled(job)
    assert "by a task" not in (await stage.run("jobs", "show", str(job.id))).out
    receipt = {"instance": "default", "job_id": job.id, "seconds_ago": 0, "waited_seconds": 90}
    headers = bearer(API_TOKEN)
    async with httpx.AsyncClient(base_url=stage.url, headers=headers) as http:
        assert (await http.post("/v1/receipts", json={"receipts": [receipt]})).json() == {"receipts": 1}
    shown = (await stage.run("jobs", "show", str(job.id))).out
    assert re.search(r"^\S+Z +received +by a task that waited 1 min 30 s$", shown, re.MULTILINE)


async def test_what_others_wrote_does_not_move_the_cursor(stage: CommandStage) -> None:
    stage.announce()
    stage.connection.name = "Or\x1b[2Jders"
    job = stage.end(stage.start())
    await stage.settled(job)
    for args in (("jobs",), ("jobs", "show", str(job.id))):
        assert "Or?[2Jders" in (await stage.run(*args)).out
        assert "\x1b[2J" not in (await stage.at_terminal(*args))[1]


@pytest.mark.parametrize(("job", "code"), [("99", 1), ("cloud/99", 1), ("x", 2), ("/7", 2), ("0", 2)])
async def test_jobs_that_are_not_there(stage: CommandStage, job: str, code: int) -> None:
    done = await stage.run("jobs", "show", job)
    assert (done.code, done.out) == (code, "")


async def test_an_airbyte_that_the_listener_does_not_have(stage: CommandStage) -> None:
    done = await stage.run("jobs", "--instance", "cloud")
    assert done.code == 0
    assert "the listener has no Airbyte cloud" in done.err
    assert "has no job cloud/99" in (await stage.run("jobs", "show", "cloud/99")).err


class TestReplay:
    async def test_of_some(self, stage: CommandStage) -> None:
        stage.announce()
        await stage.settled(stage.end(stage.start()))
        reads = stage.sim.traffic.counts["GET /jobs/{id}"]
        done = await stage.run("replay", "1", "7", "--json")
        assert done.code == 1
        told = json.loads(done.out)
        assert told["replayed"] == [1]
        assert told["refused"] == [{"id": 7, "reason": "notification 7 does not exist"}]
        while stage.sim.traffic.counts["GET /jobs/{id}"] == reads:
            await stage.run("jobs")

    async def test_of_all_since(self, stage: CommandStage) -> None:
        stage.announce()
        jobs = [stage.end(stage.start()) for _ in range(2)]
        for job in jobs:
            await stage.settled(job)
        assert json.loads((await stage.run("replay", "--since", "1h", "--json")).out)["replayed"] == [1, 2]
        assert json.loads((await stage.run("replay", "--since", "2199-01-01T00:00Z", "--json")).out)["replayed"] == []
        assert "no notifications match" in (await stage.run("replay", "--since", "1h", "--instance", "cloud")).err

    @pytest.mark.parametrize("args", [(), ("1", "--pending"), ("--since", "soon"), ("0",)])
    async def test_wrong_usage(self, stage: CommandStage, args: tuple[str, ...]) -> None:
        assert (await stage.run("replay", *args)).code == 2


async def watch(stage: CommandStage, job: Job) -> None:
    """Have the listener read the job, which runs."""
    while not job.attempts:
        await anyio.lowlevel.checkpoint()
    body, headers = {"jobs": [{"instance": "default", "job_id": job.id}]}, bearer(API_TOKEN)
    async with httpx.AsyncClient(trust_env=False) as http:
        await http.post(f"{stage.url}/v1/watches", json=body, headers=headers)


async def test_an_active_job_is_shown_with_its_progress(stage: CommandStage) -> None:
    job = stage.start()
    stage.sim.world.play(job, replace(Script.lasting(3600), records=10**9))
    await watch(stage, job)
    done = await stage.run("jobs", "show", str(job.id))
    with anyio.fail_after(60):
        # The listener may have seen the job before its first attempt.
        while not re.search(r"^public\.orders +[\d,]+ ", done.out, re.MULTILINE):
            done = await stage.run("jobs", "show", str(job.id))
    assert re.search(r"^progress +[\d,]+ records, [\d,]+ bytes$", done.out, re.MULTILINE), done.out
    told = json.loads((await stage.run("jobs", "show", str(job.id), "--json")).out)
    assert told["progress"]["job_id"] == job.id

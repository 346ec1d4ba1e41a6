"""``airbyte-events tail``: what comes, in which form, and where it goes on."""

from __future__ import annotations

import json
import os

import anyio
import pytest

from airbyte_events.listener.settings.connections import ConnectionSettings
from support.command_stage import CommandStage
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio


async def test_shows_what_happens_and_tells_where_to_go_on(stage: CommandStage) -> None:
    stage.announce()
    job = stage.start()
    async with stage.started("tail") as tail:
        await tail.said("following")
        stage.end(job, "failed")
        line = await tail.line()
        assert f"default/{job.id}  failed  sync  Orders" in line
        assert "(webhook)  Something failed" in line
        assert "\x1b" not in line
        assert await tail.interrupted() == 130
    (cursor,) = [each.rpartition(" ")[2] for each in tail.err.read_text().splitlines() if "to resume from" in each]
    second = stage.end(stage.start())
    await stage.settled(second)
    async with stage.started("tail", "--after", cursor, "--ended") as tail:
        assert f"default/{second.id}  succeeded" in await tail.line()


async def test_json_is_an_event_a_line(stage: CommandStage) -> None:
    stage.announce()
    job = stage.start()
    async with stage.started("tail", "--json") as tail:
        await tail.said("following")
        stage.end(job)
        event = json.loads(await tail.line())
    assert (event["specversion"], event["type"]) == ("1.0", "io.airbyte.job.succeeded")
    assert event["source"] == f"{stage.sim.url}/api/public/v1"
    assert event["data"]["names"]["connection"] == "Orders"


async def test_filters(stage: CommandStage) -> None:
    stage.announce()
    other = stage.sim.world.add_connection(stage.connection.script)
    jobs = [stage.start(), stage.start(other)]
    async with stage.started("tail", "--status", "failed", "--connection", other.id) as tail:
        await tail.said("following")
        stage.end(jobs[0], "failed")
        stage.end(jobs[1], "succeeded")
        last = stage.end(stage.start(other), "failed")
        assert f"default/{last.id}  failed" in await tail.line()


async def test_a_connection_by_its_name(stage: CommandStage) -> None:
    stage.announce()
    other = stage.sim.world.add_connection(stage.connection.script, name="Invoices")
    for each in (None, other):
        await stage.settled(stage.end(stage.start(each)))
    async with stage.started("tail", "--connection", "Invoices") as tail:
        await tail.said("following")
        stage.end(stage.start())
        last = stage.end(stage.start(other))
        line = await tail.line()
        while f"default/{last.id}  succeeded" not in line:
            assert "Invoices" in line
            line = await tail.line()


async def test_shows_what_is_late_only_if_asked(stage: CommandStage) -> None:
    async with stage.started("tail") as tail:
        await tail.said("following")
        assert await tail.interrupted() == 130
    (cursor,) = [each.rpartition(" ")[2] for each in tail.err.read_text().splitlines() if "to resume from" in each]
    await stage.leave()
    stage.connections = {stage.connection.id: ConnectionSettings(fresh_within=0.001)}
    await stage.listen()
    async with stage.started("tail", "--signals", "--after", cursor) as tail:
        line = await tail.line()
    assert f"  default  overdue  {stage.connection.id}  no sync has succeeded since " in line
    stage.announce()
    async with stage.started("tail", "--after", cursor) as tail:
        await tail.said("following")
        job = stage.end(stage.start())
        assert f"default/{job.id}  succeeded" in await tail.line()


async def test_survives_a_restart_of_the_listener(stage: CommandStage) -> None:
    stage.announce()
    async with stage.started("tail", "--ended") as tail:
        await tail.said("following")
        first = stage.end(stage.start())
        assert f"default/{first.id} " in await tail.line()
        await stage.leave()
        await tail.said("reconnecting")
        await stage.listen()
        await tail.said("reconnected")
        second = stage.end(stage.start())
        assert f"default/{second.id} " in await tail.line()
        assert await tail.interrupted() == 130


async def test_keeps_its_cursor_in_a_file(stage: CommandStage) -> None:
    stage.announce()
    file = stage.folder / "cursor"
    args = ("tail", "--ended", "--cursor-file", str(file))
    async with stage.started(*args) as tail:
        await tail.said("following")
        first = stage.end(stage.start())
        assert f"default/{first.id} " in await tail.line()
        assert await tail.interrupted() == 130
    second = stage.end(stage.start())
    await stage.settled(second)
    async with stage.started(*args) as tail:
        assert f"default/{second.id} " in await tail.line()


async def test_ends_quietly_when_nobody_reads(stage: CommandStage) -> None:
    stage.announce()
    ours, its = os.pipe()
    try:
        async with stage.started("tail", stdout=its) as tail:
            await tail.said("following")
            os.close(ours)
            # Nothing happens that would be written; a feed's bookmark comes after 15 s.
            with anyio.fail_after(30):
                assert await tail.ended() == 141
    finally:
        os.close(its)
    assert "Broken" not in tail.err.read_text()


class TestRefusals:
    async def test_a_token_that_is_not_accepted(self, stage: CommandStage) -> None:
        done = await stage.run("tail", LISTENER_TOKEN="another-one")
        assert (done.code, done.out) == (1, "")
        assert "refuses the API token: set AIRBYTE_EVENTS_LISTENER_TOKEN" in done.err
        assert "another-one" not in done.err

    async def test_no_token(self, stage: CommandStage) -> None:
        done = await stage.run("tail", LISTENER_TOKEN=None)
        assert done.code == 1
        assert "requires an API token: set AIRBYTE_EVENTS_LISTENER_TOKEN" in done.err

    @pytest.mark.parametrize(
        ("status", "location", "says"),
        [
            (302, "https://login.example/?next=canary", "responds with 302: a redirect: write the URL that needs none"),
            (401, None, "responds with 401: a proxy in front of the listener requires a login"),
        ],
    )
    async def test_a_login_in_front_of_the_listener_is_not_called_a_wrong_token(
        self, stage: CommandStage, server: ScriptedServer, status: int, location: str | None, says: str
    ) -> None:
        page = b"<!doctype html><title>Sign in, canary</title>"
        headers = {"Content-Type": "text/html"} | ({"Location": location} if location else {})
        server.on("GET /v1/jobs", server.reply(status, body=page, headers=headers))
        done = await stage.run("tail", LISTENER_URL=server.url)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
        assert says in done.err
        assert "API token" not in done.err
        assert "canary" not in done.err

    async def test_nobody_there(self, stage: CommandStage) -> None:
        await stage.leave()
        done = await stage.run("tail")
        assert done.code == 1
        assert done.err.count("\n") == 1
        assert "start airbyte-events serve, or name another address (--listener" in done.err

    async def test_a_cursor_that_can_not_be_kept_before_anything_is_asked(self, stage: CommandStage) -> None:
        await stage.leave()
        done = await stage.run("tail", "--cursor-file", str(stage.folder / "nowhere" / "cursor"))
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "can't be written (No such file or directory); name a file in a folder that exists" in done.err

    async def test_an_unknown_connection(self, stage: CommandStage) -> None:
        done = await stage.run("tail", "--connection", "Ordrs")
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert "the listener knows no connection named 'Ordrs': it has no job of a named connection yet" in done.err

    @pytest.mark.parametrize("args", [("--after", "yesterday"), ("--status", "done"), ("--job", "0")])
    async def test_wrong_values(self, stage: CommandStage, args: tuple[str, ...]) -> None:
        assert (await stage.run("tail", *args)).code == 2

"""``airbyte-events doctor``: what is broken is told, with what to do."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from airbyte_events.simulator import Fault, Script, Simulator, serve_simulator
from support.command_stage import CLIENT_SECRET, CommandStage
from support.servers import ScriptedServer

if TYPE_CHECKING:
    from anyio.abc import SocketStream


pytestmark = pytest.mark.anyio


async def findings(stage: CommandStage, *args: str, **settings: str | None) -> tuple[int, list[dict[str, Any]]]:
    done = await stage.run("doctor", "--json", *args, **settings)
    told = json.loads(done.out)
    assert told["broken"] == any(each["level"] == "failure" for each in told["findings"])
    assert all(each["remedy"] for each in told["findings"] if each["level"] == "failure")
    return done.code, told["findings"]


def of(told: list[dict[str, Any]], level: str) -> str:
    return "\n".join(f"{each['part']}: {each['text']} -> {each['remedy']}" for each in told if each["level"] == level)


async def test_all_is_well(stage: CommandStage) -> None:
    stage.announce()
    code, told = await findings(stage)
    assert (code, of(told, "failure"), of(told, "warning")) == (0, "", "")
    well = of(told, "ok")
    for words in (
        "settings: valid",
        "accepts the credentials; a token expires after",
        "lists jobs",
        "its clock agrees",
        "success and failure go to the listener",
        "arrived whole",
        "is ready",
        "the first frame arrives after",
        "GiB free",
    ):
        assert words in well


@pytest.mark.parametrize(
    ("options", "fault", "words"),
    [
        ({"release": "0.49"}, None, "does not return jobs, so failures that polling detects have no reason"),
        ({}, Fault(kind="status", status=403, route="POST /jobs/get_without_logs"), "refuses access"),
        ({}, Fault(kind="html", route="POST /jobs/get_without_logs"), "the response is a web page"),
    ],
)
async def test_what_the_internal_api_lacks_is_told_with_the_reason(
    stage: CommandStage, options: dict[str, Any], fault: Fault | None, words: str
) -> None:
    simulator = Simulator(client_id="client", client_secret=CLIENT_SECRET, faults=[fault] if fault else (), **options)
    simulator.world.add_connection(Script.hanging())
    async with serve_simulator(simulator) as other:
        simulator.world.start_job(next(iter(simulator.world.connections.values())))
        _, told = await findings(stage, AIRBYTE_URL=other.url)
    assert words in of(told, "warning")
    assert "do without these reasons" in of(told, "warning")


async def test_the_internal_api_that_answers(stage: CommandStage) -> None:
    stage.sim.world.start_job(stage.sim.world.add_connection(Script.hanging()))
    _, told = await findings(stage)
    assert "returns failure reasons" in of(told, "ok")


async def test_is_lines_in_a_pipe_and_coloured_at_a_terminal(stage: CommandStage) -> None:
    done = await stage.run("doctor")
    assert done.code == 1
    assert "failure  webhooks default: Simulated workspace: success goes nowhere" in done.out
    assert "         -> run airbyte-events webhooks install --workspace" in done.out
    assert "\x1b" not in done.out
    code, seen = await stage.at_terminal("doctor")
    assert code == 1
    assert "\x1b[31mfailure" in seen


async def test_lines_of_a_narrow_terminal_break_between_words(stage: CommandStage) -> None:
    in_a_pipe = (await stage.run("doctor")).out
    _, seen = await stage.at_terminal("doctor", COLUMNS="60", NO_COLOR="1")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", seen).splitlines()
    assert [line for line in lines if len(line) > 60 and " " in line[9:].strip()] == []
    # One that is longer than a line is not broken at all. Sizes and times differ.
    assert set(re.sub(r"[\d.,]+", "0", " ".join(lines)).split()) == set(re.sub(r"[\d.,]+", "0", in_a_pipe).split())
    assert all(line.startswith((" " * 9, "failure  ", "warning  ", "ok       ")) for line in lines[:-1])


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("AIRBYTE_URL", "localhost:8000", "write http://localhost:8000"),
        ("AIRBYTE_URL", "http://127.0.0.1:9", "does not respond at http://127.0.0.1:9/api/public/v1"),
        ("CLIENT_SECRET", "another", "rejects the client id and secret"),
        ("WORKSPACE_IDS", "18dccc91-0ab1-4f72-9ed7-0b8fc27c5826", "no such workspace"),
    ],
)
async def test_a_wrong_setting(stage: CommandStage, setting: str, value: str, words: str) -> None:
    code, told = await findings(stage, **{setting: value})
    assert code == 1
    assert words in of(told, "failure")


async def test_an_address_that_is_no_airbyte(stage: CommandStage) -> None:
    _, told = await findings(stage, AIRBYTE_URL=stage.url)
    assert "is not Airbyte's public API" in of(told, "failure")


async def test_wrong_credentials_of_simple_authentication_in_its_words(stage: CommandStage) -> None:
    async with serve_simulator(Simulator(client_id="client", client_secret="right", simple_auth=True)) as other:
        code, told = await findings(stage, AIRBYTE_URL=other.url)
    assert code == 1
    assert "rejects the client id and secret" in of(told, "failure")
    assert "400: Invalid client id or token" in of(told, "failure")
    assert "create an application in Airbyte" in of(told, "failure")


@pytest.mark.parametrize(("status", "location"), [(403, None), (302, "https://login.example/"), (200, None)])
async def test_a_login_in_front_of_it_is_told_from_airbyte_s_refusal(
    stage: CommandStage, server: ScriptedServer, status: int, location: str | None
) -> None:
    page = b"<!doctype html><title>Corporate sign-in</title>"
    headers = {"Content-Type": "text/html"} | ({"Location": location} if location else {})
    server.on("GET /api/public/v1/health", server.reply(200, body=b"ok", headers={"Content-Type": "text/plain"}))
    server.on("POST /api/public/v1/applications/token", server.reply(status, body=page, headers=headers))
    code, told = await findings(stage, AIRBYTE_URL=server.url)
    assert code == 1
    assert "login" in of(told, "failure")
    assert "Corporate sign-in" in of(told, "failure") or status == 302
    assert "make an application" not in of(told, "failure")


async def test_up_to_1_5_webhooks_are_set_in_airbyte_s_pages(stage: CommandStage) -> None:
    airbyte = Simulator(client_id="client", client_secret=CLIENT_SECRET, release="1.5", webhook_url=stage.receiver)
    async with serve_simulator(airbyte) as other:
        code, told = await findings(stage, AIRBYTE_URL=other.url)
    assert (code, of(told, "failure")) == (0, "")
    assert "can't be read: this Airbyte's API has no notification settings" in of(told, "warning")
    assert "set it in Airbyte's pages: under Settings, Notifications" in of(told, "warning")
    assert "webhooks install" not in of(told, "warning")


async def test_credentials_where_none_are_wanted_and_none_where_they_are(stage: CommandStage) -> None:
    _, told = await findings(stage, CLIENT_ID=None, CLIENT_SECRET=None)
    assert "does not permit listing jobs" in of(told, "failure")
    assert "create an application in Airbyte" in of(told, "failure")


async def test_no_permission_to_list(stage: CommandStage) -> None:
    stage.sim.add_fault(Fault(kind="status", status=403, route="GET /jobs"))
    _, told = await findings(stage)
    assert "does not permit listing jobs" in of(told, "failure")
    assert "webhooks default" not in of(told, "failure")


async def test_sheds_load(stage: CommandStage) -> None:
    stage.sim.add_fault(Fault(kind="status", status=429))
    code, told = await findings(stage)
    assert code == 0
    assert "sheds load" in of(told, "warning")


async def test_a_store_that_is_a_folder_and_one_that_is_not_there(stage: CommandStage) -> None:
    stage.announce()
    code, told = await findings(stage, STORE=f"sqlite:///{stage.folder}")
    assert code == 1
    assert f"{stage.folder} is a folder" in of(told, "failure")
    code, told = await findings(stage, STORE=f"sqlite:///{stage.folder}/none.db")
    assert code == 0
    assert "none.db does not exist" in of(told, "ok")


async def test_the_listener_is_down(stage: CommandStage) -> None:
    stage.announce()
    await stage.leave()
    code, told = await findings(stage)
    assert code == 1
    assert "does not respond" in of(told, "failure")
    assert "start airbyte-events serve" in of(told, "failure")
    # What else there is to look at is looked at.
    assert "no response (Connection refused)" in of(told, "failure")
    assert "lists jobs" in of(told, "ok")


async def test_the_token_is_wrong(stage: CommandStage) -> None:
    _, told = await findings(stage, LISTENER_TOKEN="another-one")
    assert "refuses the API token" in of(told, "failure")


async def test_webhooks_go_where_they_do_not_arrive(stage: CommandStage) -> None:
    stage.sim.workspace.set_webhook(stage.receiver.replace(stage.url, f"{stage.sim.url}/old"))
    code, told = await findings(stage)
    assert code == 1
    assert "it responds with 404" in of(told, "failure")


async def test_a_server_that_loses_bodies(stage: CommandStage, server: ScriptedServer) -> None:
    path = f"/webhooks/default/{stage.receiver.rpartition('/')[2]}"
    said = {"error": "the notification's body is empty"}
    server.on(f"POST {path}", server.reply(400, said))
    stage.sim.workspace.set_webhook(f"{server.url}{path}")
    _, told = await findings(stage)
    by_airbyte, request = server.requests
    assert by_airbyte.headers["upgrade"] == request.headers["upgrade"] == "h2c"
    # Slack need not hear of it.
    assert request.headers["airbyte-events-forwarded"] == "1"
    assert "a proxy lost the body" in of(told, "failure")


async def test_a_proxy_that_holds_the_stream_back(stage: CommandStage, server: ScriptedServer) -> None:
    async def buffer(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await stream.receive()

    for path, answer in (
        ("/healthz", {"version": "0.0.9"}),
        ("/readyz", {"status": "ready"}),
        ("/v1/status", {"store": {}}),
    ):
        server.on(f"GET {path}", server.reply(200, answer))
    server.on("GET /v1/events", buffer)
    code, told = await findings(stage, LISTENER_URL=server.url)
    assert code == 1
    assert "no frame arrived within 10 s" in of(told, "failure")
    assert "proxy_buffering off" in of(told, "failure")
    assert "version 0.0.9" in of(told, "warning")


async def test_a_clock_that_is_off_and_a_token_that_is_short(stage: CommandStage, server: ScriptedServer) -> None:
    date = format_datetime(datetime.now(UTC) - timedelta(minutes=7, seconds=30), usegmt=True)
    base = "/api/public/v1"
    server.on(f"GET {base}/health", server.reply(200, {}))
    server.on(f"POST {base}/applications/token", server.reply(200, {"access_token": "x", "expires_in": 30}))
    server.on(f"GET {base}/jobs", server.reply(200, {"data": []}, {"Date": date}))
    server.on(f"GET {base}/workspaces", server.reply(403, {}))
    code, told = await findings(stage, AIRBYTE_URL=server.url)
    assert code == 0
    warned = of(told, "warning")
    assert "its clock is 7 min" in warned
    assert "a token expires after 30.0 s" in warned
    assert "the notification settings can't be read" in warned


async def test_remedies_name_the_airbyte_where_there_are_several(stage: CommandStage) -> None:
    one = await stage.run("doctor")
    assert "-> run airbyte-events webhooks install --workspace" in one.out
    assert "1 failure, " in one.out
    settings = {"INSTANCES__OTHER__AIRBYTE_URL": "http://127.0.0.1:9"}
    several = await stage.run("doctor", **settings)
    assert "-> run airbyte-events webhooks install --instance default --workspace" in several.out
    (remedy,) = re.findall(r"-> run airbyte-events (webhooks install .*) --url URL", several.out)
    done = await stage.run(*remedy.split(), "--url", stage.url, "--yes", **settings)
    assert done.code == 0
    status = await stage.run("webhooks", "status", "--instance", "default", "--url", "http://elsewhere", **settings)
    assert "airbyte-events webhooks install --instance default --url http://elsewhere" in status.err


# Not by importing it: that takes seconds, in which the listener of this process would not respond.
@pytest.mark.skipif(find_spec("airflow") is None, reason="Airflow is not here")
async def test_airflow_is_looked_at_where_it_is(stage: CommandStage) -> None:
    stage.announce()
    home = {"AIRFLOW_HOME": str(stage.folder / "airflow")}
    conn = {"conn_type": "airbyte", "host": stage.sim.url, "login": "client", "password": CLIENT_SECRET}
    code, told = await findings(stage, "--airflow", AIRFLOW_CONN_AIRBYTE_DEFAULT=json.dumps(conn), **home)
    assert code == 0, of(told, "failure")
    assert "Airflow: version 3" in of(told, "ok")
    assert "No listener is configured" in of(told, "warning")
    # Airflow says on standard output that it is too short to be masked.
    conn["password"] = "x"
    code, told = await findings(stage, AIRFLOW_CONN_AIRBYTE_DEFAULT=json.dumps(conn), **home)
    assert code == 1
    assert "Airflow airbyte_default: The credentials" in of(told, "failure")

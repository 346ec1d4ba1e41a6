"""Refreshes, which the internal API alone starts: never beside another job, once, or refused in so many words."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.airbyte.refresh_start import find_streams
from airbyte_events.airbyte.submission import How, OnConflict, Submission, submit
from airbyte_events.errors import Conflict, MaybeStarted, UnknownStream, Unsupported
from airbyte_events.events import Identity
from airbyte_events.jobs import Refresh, RefreshMode
from airbyte_events.simulator import Fault, Script
from support.loops import anyio_backend as anyio_backend
from support.servers import ScriptedServer

from .conftest import Scene, staged

pytestmark = pytest.mark.anyio

ROUTE = "POST /connections/refresh"


async def refresh(scene: Scene, *streams: str, mode: str = "merge", **values: Any) -> Submission:
    return await scene.submit("refresh", refresh=Refresh(mode=RefreshMode(mode), streams=streams), **values)


@pytest.mark.parametrize("release", ["1.0", "2.0", "2.1"])
async def test_it_is_started_and_the_same_job_in_both_apis(release: str) -> None:
    async with staged(release=release) as scene:
        submission = await refresh(scene, "items", "public.orders", mode="truncate")
        job, created = submission.job, scene.sim.world.jobs[1]
        assert (submission.how, submission.owned, job.job_id, job.job_type) == (How.STARTED, True, 1, "refresh")
        assert created.type == "refresh"
        assert created.refreshed == [{"name": name, "namespace": "public"} for name in ("items", "orders")]
        assert Identity(job.connection_id, job.started_at).fits(await scene.airbyte.get_job(1))


@pytest.mark.parametrize(("mode", "sent"), [("merge", "Merge"), ("truncate", "Truncate")])
async def test_the_request(server: ScriptedServer, mode: str, sent: str) -> None:
    server.on("GET /api/public/v1/jobs", server.reply(200, {"data": []}))
    started = {"job": {"id": 7, "configType": "refresh", "status": "pending", "createdAt": 1_700_000_000}}
    server.on("POST /api/v1/connections/refresh", server.reply(200, started))
    async with httpx.AsyncClient() as http:
        job = await AirbyteClient(http, server.url).create_job("c", "refresh", Refresh(mode=RefreshMode(mode)))
    assert job.job_id == 7
    (request,) = [each for each in server.requests if each.path.endswith("/refresh")]
    assert json.loads(request.body) == {"connectionId": "c", "refreshMode": sent}


@pytest.mark.parametrize("release", ["2.0", "2.1"])
@pytest.mark.parametrize("policy", [each.value for each in OnConflict])
@pytest.mark.parametrize("running", ["sync", "reset", "refresh"])
@pytest.mark.parametrize("status", ["running", "pending"])
async def test_it_is_never_sent_while_a_job_is_active(release: str, policy: str, running: str, status: str) -> None:
    async with staged(release=release) as scene:
        active = scene.sim.world.start_job(scene.connection, running, Script.hanging(status))
        submission = await refresh(scene, on_conflict=policy)
        assert (submission.how, submission.job.job_id, submission.owned) == (How.BLOCKED, active.id, False)
        assert active.status == status
        with pytest.raises(Conflict, match=f"job {active.id} of connection .* is active"):
            await scene.airbyte.create_job(scene.connection.id, "refresh")
        assert scene.requests(ROUTE) == 0
        assert scene.connection.to_refresh is None


async def test_a_job_that_starts_just_before_it_is_in_the_way(scene: Scene) -> None:
    """Airbyte's answer has no job then; its next sync becomes the refresh."""

    async def start(request: httpx.Request) -> None:
        if request.url.path.endswith("/refresh") and not scene.connection.jobs:
            scene.sim.world.start_job(scene.connection)

    scene.http.event_hooks["request"].append(start)
    submission = await refresh(scene)
    assert (submission.how, submission.job.job_id, submission.job.job_type) == (How.BLOCKED, 1, "sync")
    assert scene.requests(ROUTE) == 1


async def test_a_connection_that_is_disabled_is_said_to_be(scene: Scene) -> None:
    scene.connection.active = False
    with pytest.raises(Conflict, match="enabled in Airbyte"):
        await refresh(scene)
    assert scene.requests(ROUTE) == 1


@pytest.mark.parametrize("release", ["2.0", "2.1"])
@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("fault", [{"kind": "reset"}, {"kind": "status", "status": 503}, {"kind": "empty"}])
async def test_a_lost_response_is_looked_for(release: str, ended: bool, fault: dict[str, Any]) -> None:
    async with staged(release=release) as scene:
        for job_type in ("sync", "refresh"):
            scene.sim.world.end_job(scene.sim.world.start_job(scene.connection, job_type), "succeeded")
        scene.connection.script = Script.lasting(0) if ended else Script.hanging()
        scene.sim.add_fault(Fault(route=ROUTE, after=True, **fault))
        submission = await refresh(scene)
        assert (submission.how, submission.job.job_id, submission.owned) == (How.FOUND, 3, True)
        assert scene.requests(ROUTE) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 403},
        {"kind": "status", "status": 404},
        {"kind": "status", "status": 405},
        {"kind": "html"},
        {"kind": "html", "status": 403},
    ],
)
async def test_where_airbyte_has_no_such_call_the_refusal_is_clear(scene: Scene, fault: dict[str, Any]) -> None:
    scene.sim.add_fault(Fault(route=ROUTE, **fault))
    with pytest.raises(Unsupported, match=r"nothing was started .* Airbyte 0\.63\.8 or newer"):
        await refresh(scene)
    assert scene.requests(ROUTE) == 1
    assert not scene.connection.jobs


async def test_a_redirect_to_a_login_is_a_clear_refusal_too(server: ScriptedServer) -> None:
    server.on("GET /api/public/v1/jobs", server.reply(200, {"data": []}))
    elsewhere = server.reply(302, headers={"Location": "https://login.example.com/"})
    server.on("POST /api/v1/connections/refresh", elsewhere)
    async with httpx.AsyncClient() as http:
        with pytest.raises(Unsupported, match="login"):
            await submit(AirbyteClient(http, server.url), "c", "refresh")


async def test_an_old_release_refuses_clearly() -> None:
    async with staged(release="0.50") as scene:
        with pytest.raises(Unsupported):
            await refresh(scene)


async def test_a_refusal_after_a_lost_response_is_a_doubt(scene: Scene) -> None:
    scene.sim.add_fault(Fault(kind="reset", route=ROUTE, count=1))
    scene.sim.add_fault(Fault(kind="status", status=403, route=ROUTE))
    with pytest.raises(MaybeStarted, match="403"):
        await refresh(scene, delays=(0.0, 0.01))


async def test_a_load_shed_request_is_sent_again_only_while_no_job_is_active(scene: Scene) -> None:
    scene.sim.add_fault(Fault(kind="status", status=429, route=ROUTE, count=1))
    assert (await refresh(scene)).how is How.STARTED
    scene.sim.world.end_job(scene.connection.current, "succeeded")
    scene.sim.add_fault(Fault(kind="status", status=429, route=ROUTE, count=1))

    async def start(response: httpx.Response) -> None:
        if response.status_code == 429:
            scene.sim.world.start_job(scene.connection)

    scene.http.event_hooks["response"].append(start)
    assert (await refresh(scene)).how is How.BLOCKED
    assert scene.requests(ROUTE) == 3


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("customers", "the connection has no stream named 'customers': 'public.items', 'public.orders'"),
        ("private.orders", "no stream named 'private.orders'"),
        ("", "no stream named ''"),
    ],
)
async def test_an_unknown_stream_is_refused_with_those_that_there_are(scene: Scene, wanted: str, words: str) -> None:
    with pytest.raises(UnknownStream, match=words):
        await refresh(scene, "orders", wanted)
    assert scene.requests(ROUTE) == 0


def test_streams_of_one_name_need_their_namespace() -> None:
    streams = [{"name": "a.b", "namespace": each} for each in ("one", "two")] + [{"name": "c"}, {"name": 7}, None]
    connection = {"configurations": {"streams": streams}}
    assert find_streams(connection, ["two.a.b", "c", "c"]) == [
        {"streamName": "a.b", "streamNamespace": "two"},
        {"streamName": "c"},
    ]
    with pytest.raises(UnknownStream, match=r"2 streams named 'a\.b': 'one\.a\.b', 'two\.a\.b'"):
        find_streams(connection, ["a.b"])


@pytest.mark.parametrize("odd", [{}, {"configurations": 7}, {"configurations": {"streams": 7}}])
def test_a_connection_without_streams(odd: dict[str, Any]) -> None:
    with pytest.raises(UnknownStream, match="it has none"):
        find_streams(odd, ["orders"])

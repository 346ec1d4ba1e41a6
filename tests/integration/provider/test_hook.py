"""The hooks' methods, and signals that come meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import anyio.to_thread
import pytest
from airbyte_api.api import GetJobRequest
from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException

from airbyte_events.simulator import Fault, Script, Simulator, serve_simulator
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.hooks.listener import ListenerHook
from support.airflow_stage import AirflowStage
from support.listener import CLIENT_SECRET, Running
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio


async def test_the_official_methods(stage: AirflowStage) -> None:
    hook = AirbyteHook("airbyte_default", api_version="v1", timeout=5)
    assert (hook.conn_type, hook.default_conn_name, hook.hook_name) == ("airbyte", "airbyte_default", "Airbyte")
    job = await anyio.to_thread.run_sync(hook.submit_sync_connection, stage.connection_id)
    assert (job.job_id, job.status) == (1, "running")
    assert (await anyio.to_thread.run_sync(hook.get_job_details, 1)).connection_id == stage.connection_id
    assert await anyio.to_thread.run_sync(hook.get_job_status, 1) == "running"
    assert (await anyio.to_thread.run_sync(hook.cancel_job, 1)).status == "cancelled"
    job = await anyio.to_thread.run_sync(hook.submit_reset_connection, stage.connection_id)
    assert job.job_type == "reset"
    assert hook.get_conn_params("airbyte_default")["client_id"] == "client"


async def test_operations_share_a_token_until_it_is_refused(stage: AirflowStage) -> None:
    hook = AirbyteHook()
    job = await anyio.to_thread.run_sync(hook.submit_sync_connection, stage.connection_id)
    await anyio.to_thread.run_sync(hook.get_job_details, job.job_id)
    async with AirbyteHook().open() as airbyte:
        await airbyte.get_job(job.job_id)
    assert stage.requests("POST /applications/token") == 1
    stage.sim.tokens.expire()
    for _ in range(2):
        await anyio.to_thread.run_sync(hook.get_job_details, job.job_id)
    assert stage.requests("POST /applications/token") == 2


async def test_a_connection_test_has_a_token_of_its_own(stage: AirflowStage) -> None:
    hook = AirbyteHook()
    await anyio.to_thread.run_sync(hook.list_connections)
    for tests in (1, 2):
        assert (await anyio.to_thread.run_sync(hook.test_connection))[0]
        assert stage.requests("POST /applications/token") == 1 + tests


async def test_other_credentials_have_another_token(stage: AirflowStage) -> None:
    await anyio.to_thread.run_sync(AirbyteHook().list_connections)
    stage.connect(
        "wrong", conn_type="airbyte", host=stage.sim.url, login="client", password="not-the-secret-of-this-application"
    )
    with pytest.raises(AirflowException, match="rejects this client id and secret"):
        await anyio.to_thread.run_sync(AirbyteHook("wrong").list_connections)


async def test_coroutines_get_the_client(stage: AirflowStage) -> None:
    async with AirbyteHook().open() as airbyte:
        assert (await airbyte.create_job(stage.connection_id)).job_id == 1


async def test_waiting_for_a_job(stage: AirflowStage) -> None:
    hook = AirbyteHook()
    good, bad, endless = (stage.start_elsewhere() for _ in range(3))
    stage.end(good)
    stage.end(bad, "failed")
    await anyio.to_thread.run_sync(hook.wait_for_job, good.id)
    with pytest.raises(AirflowException, match="failed"):
        await anyio.to_thread.run_sync(hook.wait_for_job, str(bad.id))
    with pytest.raises(AirflowException, match=r"did not complete within 0\.2 s: it is cancelled now"):
        await anyio.to_thread.run_sync(hook.wait_for_job, endless.id, 0.1, 0.2)


async def test_cancelling_a_job_that_has_ended_leaves_the_next_one_alone(stage: AirflowStage) -> None:
    job = stage.end(stage.start())
    following = stage.start()
    assert (await anyio.to_thread.run_sync(AirbyteHook().cancel_job, job.id)).status == "succeeded"
    assert following.status == "running"


async def test_a_missing_connection() -> None:
    with pytest.raises(AirflowNotFoundException, match="no_such_connection"):
        await anyio.to_thread.run_sync(AirbyteHook("no_such_connection").get_job_details, 1)


@pytest.mark.parametrize("timeout", [-1, 0, float("inf"), "soon"])
def test_a_wrong_timeout_fails_in_the_constructor(timeout: Any) -> None:
    with pytest.raises(ValueError, match="the hook's timeout is not a positive number of seconds"):
        AirbyteHook(timeout=timeout)


async def test_a_wrong_timeout_of_the_connection_fails_when_it_is_read(stage: AirflowStage) -> None:
    stage.connect_airbyte(timeout="soon")
    with pytest.raises(AirflowException, match=r"extra 'timeout' of Airflow connection .* is not a positive number"):
        await anyio.to_thread.run_sync(AirbyteHook().get_job_details, 1)


async def check(conn_id: str = "airbyte_default") -> tuple[bool, str]:
    return await anyio.to_thread.run_sync(AirbyteHook(conn_id).test_connection)


async def test_the_connection_test_says_what_it_found(stage: AirflowStage) -> None:
    works, words = await check()
    assert works, words
    assert words == (
        f"Airbyte at {stage.sim.url}/api/public/v1 responds, accepts the credentials and lists jobs. "
        "No listener is configured: waiting tasks poll."
    )


async def test_the_connection_test_compares_airbyte_and_listener(stage: AirflowStage, listener: Running) -> None:
    works, words = await check()
    assert works, words
    assert "Whether it serves this Airbyte can be tested once that has a job" in words

    stage.end(stage.start())
    works, words = await check()
    assert works, words
    assert f"The listener {listener.url} responds, accepts the token, and serves this Airbyte as 'default'." in words

    stage.connect_airbyte(instance="eu", listener_conn_id="listener")
    works, words = await check()
    assert not works
    assert f"The instance: the listener {listener.url} has none called 'eu'" in words

    async with serve_simulator(Simulator(client_id="client", client_secret=CLIENT_SECRET)) as other:
        stage.connect(
            "airbyte_default",
            conn_type="airbyte",
            host=other.url,
            login="client",
            password=CLIENT_SECRET,
            extra={"listener_conn_id": "listener"},
        )
        theirs = other.world.add_connection(Script.hanging())
        for _ in range(3):  # the first of them has a number that both have
            other.world.end_job(other.world.start_job(theirs), "succeeded")
        works, words = await check()
        assert not works
        assert "is another Airbyte: it does not have job 1 of this one" in words


@pytest.mark.parametrize(
    ("status", "says"), [(302, "a redirect"), (401, "a proxy in front of the listener requires a login")]
)
async def test_a_login_in_front_of_the_listener_is_told_from_its_refusal(
    stage: AirflowStage, server: ScriptedServer, status: int, says: str
) -> None:
    server.on("POST /v1/watches", server.reply(status, body=b"<html>Sign in", headers={"Location": "/login"}))
    stage.connect_listener(server.url, "token-0123456789abcdef0123456789")
    works, words = await check()
    assert not works
    assert f"responds with {status}: " in words
    assert says in words
    assert "refuses the API token" not in words


async def test_the_connection_test_tells_which_part_fails(stage: AirflowStage, listener: Running) -> None:
    stage.connect_listener(listener.url, "wrong-token-0123456789abcdef0123")
    works, words = await check()
    assert not works
    assert "The listener fails: The listener's API token:" in words
    assert "refuses the API token" in words

    stage.connect_listener("http://127.0.0.1:9")
    works, words = await check()
    assert not works
    assert "Check that it runs, and is reached from here" in words

    stage.connect_listener(stage.sim.url)
    works, words = await check()
    assert not works
    assert "Check that it is a listener's" in words

    stage.sim.add_fault(Fault(kind="status", status=403, route="GET /jobs", count=1))
    works, words = await check()
    assert not works
    assert words.startswith("The permission to list jobs")

    stage.connect("airbyte_default", conn_type="airbyte", host=stage.sim.url, login="client", password="wrong-secret")
    works, words = await check()
    assert not works
    assert words.startswith("The credentials")
    assert "Settings, Applications" in words
    assert "wrong-secret" not in words

    stage.connect("airbyte_default", conn_type="airbyte", host="http://127.0.0.1:9")
    works, words = await check()
    assert not works
    assert words.startswith("The server's URL: nothing responds")

    stage.connect("airbyte_default", conn_type="airbyte", host=f"{listener.url}/v1")
    works, words = await check()
    assert not works
    assert "The server's URL: " in words

    stage.connect("airbyte_default", conn_type="airbyte", host="http://airbyte:8000/api/v1")
    works, words = await check()
    assert not works
    assert "is of the internal configuration API: write http://airbyte:8000/api/public/v1" in words


async def test_the_listeners_connection_test(stage: AirflowStage, listener: Running) -> None:
    assert await anyio.to_thread.run_sync(ListenerHook("listener").test_connection) == (
        True,
        f"The listener {listener.url} responds and accepts the token.",
    )
    works, words = await anyio.to_thread.run_sync(ListenerHook("nowhere").test_connection)
    assert not works
    assert "nowhere" in words


async def test_airbytes_sdk_for_those_who_used_it(stage: AirflowStage) -> None:
    job = stage.start()

    def ask() -> Any:
        sdk: Any = AirbyteHook().airbyte_api
        try:
            return sdk.jobs.get_job(request=GetJobRequest(job_id=job.id))
        finally:
            sdk.sdk_configuration.client.close()

    answer = await anyio.to_thread.run_sync(ask)
    assert (answer.job_response.job_id, answer.job_response.status) == (job.id, "running")


async def test_without_airbytes_sdk(stage: AirflowStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airbyte_api", None)
    with pytest.raises(AirflowException, match="pip install 'airbyte-api>=1,<2', or use the hook's own methods"):
        await anyio.to_thread.run_sync(AirbyteHook().create_api_session)


async def test_requests_go_by_the_proxy(stage: AirflowStage, server: ScriptedServer) -> None:
    proxy = server.url.replace("http://", "http://user:pass@")
    server.on("GET /api/public/v1/jobs/7", server.reply(200, {}))
    stage.connect("airbyte_default", conn_type="airbyte", host="http://airbyte.invalid", extra={"proxies": proxy})
    with pytest.raises(AirflowException) as info:
        await anyio.to_thread.run_sync(AirbyteHook().get_job_details, 7)
    assert "pass" not in str(info.value)
    (request,) = server.requests
    assert request.headers["proxy-authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        ({"verify": "/nowhere.pem"}, "verify: no certificates in /nowhere.pem"),
        ({"client_cert": "/nowhere.pem"}, "client_cert: no certificate with its key in /nowhere.pem"),
        ({"proxies": "ftp://user:pass@proxy"}, "extra 'proxies' of Airflow connection 'airbyte_default' can't be used"),
    ],
)
async def test_connecting_options_that_are_wrong(stage: AirflowStage, extra: dict[str, Any], fault: str) -> None:
    stage.connect("airbyte_default", conn_type="airbyte", host="https://airbyte.invalid", extra=extra)
    with pytest.raises(AirflowException) as info:
        await anyio.to_thread.run_sync(AirbyteHook().get_job_details, 7)
    assert fault in str(info.value)
    assert "pass@" not in str(info.value)


@pytest.mark.parametrize("extra", [{}, {"proxies": "http://127.0.0.1:9"}])
async def test_a_proxy_of_the_environment_that_can_t_be_read_is_not_the_connection_s_fault(
    stage: AirflowStage, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:pa#ss@proxy:3128")
    stage.connect("airbyte_default", conn_type="airbyte", host="https://airbyte.invalid", extra=extra)
    ok, says = await anyio.to_thread.run_sync(AirbyteHook().test_connection)
    assert not ok
    assert "HTTPS_PROXY: not a proxy's address" in says
    assert "extra" not in says
    assert "pa#" not in says
    with pytest.raises(AirflowException, match="HTTPS_PROXY: not a proxy's address"):
        await anyio.to_thread.run_sync(AirbyteHook().get_job_details, 7)


async def test_networks_of_no_proxy_hold_for_tasks_and_airbytes_sdk(
    stage: AirflowStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.0/8,::1/128")
    job = await anyio.to_thread.run_sync(AirbyteHook().submit_sync_connection, stage.connection_id)
    assert (await anyio.to_thread.run_sync(AirbyteHook().get_job_details, job.job_id)).job_id == job.job_id
    sdk: Any = await anyio.to_thread.run_sync(lambda: AirbyteHook().airbyte_api)
    # Without a token: the SDK keeps those of other tests' Airbytes for the life of the process.
    health = f"{stage.sim.url}/v1/health"
    with contextlib.closing(sdk.sdk_configuration.client) as http:
        assert (await anyio.to_thread.run_sync(http.get, health)).is_success
    async with sdk.sdk_configuration.async_client as http:
        assert (await http.get(health)).is_success


async def test_the_listeners_feed_for_coroutines(stage: AirflowStage, listener: Running) -> None:
    async with ListenerHook("listener").open() as feed:
        assert (await feed.watch([])).states == {}


SYNCHRONOUS_TASK = """
import sys, warnings
from datetime import timedelta
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, timeout
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator
task = AirbyteTriggerSyncOperator(task_id="sync", connection_id=sys.argv[1], wait_seconds=0.1)
ExecutorSafeguard.tracker.set(task)
try:
    with timeout(600.0):
        task.execute(context={})
except AirflowTaskTimeout:
    task.on_kill()
    print("timed out")
"""


async def time_out(stage: AirflowStage, route: str) -> None:
    """Run a task as Airflow's task runner does, in a process of its own, and let its time be up after that request."""
    command = [sys.executable, "-c", SYNCHRONOUS_TASK, stage.connection_id]
    async with await anyio.open_process(command, env=os.environ, stderr=subprocess.STDOUT) as process:
        await stage.until(lambda: stage.requests(route))
        process.send_signal(signal.SIGALRM)
        assert process.stdout is not None
        said = b"".join([chunk async for chunk in process.stdout])
    assert said.decode().splitlines()[-1] == "timed out"


async def test_the_execution_timeout_of_a_worker_ends_the_wait_and_cancels_the_job(stage: AirflowStage) -> None:
    await time_out(stage, "GET /jobs/{id}")
    assert stage.sim.world.jobs[1].status == "cancelled"


async def test_the_execution_timeout_of_a_worker_cancels_a_job_whose_start_it_cut_off(stage: AirflowStage) -> None:
    stage.sim.add_fault(Fault(kind="slow", delay=20, route="POST /jobs"))
    await time_out(stage, "POST /jobs")
    assert stage.sim.world.jobs[1].status == "cancelled"


@pytest.mark.parametrize("hours", [-3, 0, 3])
async def test_how_far_airbytes_clock_is_ahead(stage: AirflowStage, server: ScriptedServer, hours: int) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)
    server.on("GET /api/public/v1/jobs", server.reply(200, {"data": []}, {"Date": date}))
    stage.connect("other", conn_type="airbyte", host=server.url)
    ahead = await anyio.to_thread.run_sync(AirbyteHook("other").clock_ahead)
    assert abs(ahead - timedelta(hours=hours)) < timedelta(minutes=1)


async def test_the_time_that_an_answer_takes_is_no_difference_of_clocks(stage: AirflowStage) -> None:
    stage.sim.add_fault(Fault(kind="slow", delay=4, route="GET /jobs"))
    assert await anyio.to_thread.run_sync(AirbyteHook().clock_ahead) == timedelta(0)

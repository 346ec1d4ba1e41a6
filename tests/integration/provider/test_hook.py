"""The hooks' methods, and signals that come meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import anyio.to_thread
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException

from airbyte_events.simulator import Fault
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.hooks.listener import ListenerHook

pytestmark = pytest.mark.anyio


async def test_the_official_methods(stage: Any) -> None:
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


async def test_coroutines_get_the_client(stage: Any) -> None:
    async with AirbyteHook().open() as airbyte:
        assert (await airbyte.create_job(stage.connection_id)).job_id == 1


async def test_waiting_for_a_job(stage: Any) -> None:
    hook = AirbyteHook()
    good, bad, endless = (stage.start_elsewhere() for _ in range(3))
    stage.end(good)
    stage.end(bad, "failed")
    await anyio.to_thread.run_sync(hook.wait_for_job, good.id)
    with pytest.raises(AirflowException, match="failed"):
        await anyio.to_thread.run_sync(hook.wait_for_job, str(bad.id))
    with pytest.raises(AirflowException, match=r"did not end within 0\.2 s: it is cancelled now"):
        await anyio.to_thread.run_sync(hook.wait_for_job, endless.id, 0.1, 0.2)


async def test_cancelling_a_job_that_has_ended_leaves_the_next_one_alone(stage: Any) -> None:
    job = stage.start()
    stage.end(job)
    following = stage.start()
    assert (await anyio.to_thread.run_sync(AirbyteHook().cancel_job, job.id)).status == "succeeded"
    assert following.status == "running"


async def test_a_missing_connection() -> None:
    with pytest.raises(AirflowNotFoundException, match="no_such_connection"):
        await anyio.to_thread.run_sync(AirbyteHook("no_such_connection").get_job_details, 1)


async def test_a_wrong_timeout(stage: Any) -> None:
    with pytest.raises(AirflowException, match="the hook's timeout is not a positive number of seconds"):
        await anyio.to_thread.run_sync(AirbyteHook(timeout=-1).get_job_details, 1)


async def check(conn_id: str = "airbyte_default") -> tuple[bool, str]:
    return await anyio.to_thread.run_sync(AirbyteHook(conn_id).test_connection)


async def test_the_connection_test_tells_which_part_fails(stage: Any, listener: Any) -> None:
    works, words = await check()
    assert works, words
    assert f"the listener {listener.url} answers" in words.lower()

    stage.connect_listener(listener.url, "wrong-token-0123456789abcdef0123")
    works, words = await check()
    assert not works
    assert "refuses the API token" in words

    stage.sim.add_fault(Fault(kind="status", status=403, route="GET /jobs", count=1))
    works, words = await check()
    assert not works
    assert words.startswith("The permission to list jobs")

    stage.connect("airbyte_default", conn_type="airbyte", host=stage.sim.url, login="client", password="wrong-secret")
    works, words = await check()
    assert not works
    assert words.startswith("The credentials")
    assert "wrong-secret" not in words

    stage.connect("airbyte_default", conn_type="airbyte", host="http://127.0.0.1:9")
    works, words = await check()
    assert not works
    assert words.startswith("The server's URL")


async def test_the_listeners_connection_test(stage: Any, listener: Any) -> None:
    assert await anyio.to_thread.run_sync(ListenerHook("listener").test_connection) == (
        True,
        f"The listener {listener.url} answers.",
    )
    works, words = await anyio.to_thread.run_sync(ListenerHook("nowhere").test_connection)
    assert not works
    assert "nowhere" in words


async def test_the_listeners_feed_for_coroutines(stage: Any, listener: Any) -> None:
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
    with timeout(1.0):
        task.execute(context={})
except AirflowTaskTimeout:
    task.on_kill()
    print("timed out")
"""


async def test_the_execution_timeout_of_a_worker_ends_the_wait_and_cancels_the_job(stage: Any) -> None:
    # As Airflow's task runner does it: by a real alarm signal, in a process of its own.
    process = await anyio.run_process(
        [sys.executable, "-c", SYNCHRONOUS_TASK, stage.connection_id], env=os.environ, stderr=subprocess.STDOUT
    )
    assert process.stdout.decode().splitlines()[-1] == "timed out"
    assert stage.sim.world.jobs[1].status == "cancelled"

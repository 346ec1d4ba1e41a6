"""The Airflow that the other tests and the demo run on: it works, and it leaves nothing behind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from airflow_api import AirflowApiError
from airflow_stack import COMPONENTS, AirflowStack
from keeper import alive
from processes import StackError, wait_until
from services import Services

Owner = Callable[[str, Path, str], AbstractContextManager[subprocess.Popen[str]]]


def test_a_deferred_task_completes(airflow: AirflowStack) -> None:
    run_id = airflow.trigger_dag("waits", {"seconds": 6})
    airflow.wait_for_task("waits", run_id, "wait", {"deferred"})
    tasks = airflow.wait_for_run("waits", run_id)
    assert {name: task.state for name, task in tasks.items()} == {"wait": "success"}
    assert airflow.api.xcoms("waits", run_id, "wait")["return_value"] == {"waited": True}
    events = [line.event for line in airflow.api.task_log("waits", run_id, "wait")]
    assert events.index("Trigger fired event") < events.index("resumed")


def test_a_deferred_task_outlives_its_triggerer(airflow: AirflowStack) -> None:
    run_id = airflow.trigger_dag("waits", {"seconds": 12})
    airflow.wait_for_task("waits", run_id, "wait", {"deferred"})
    airflow.restart("triggerer")
    assert airflow.wait_for_run("waits", run_id)["wait"].state == "success"


def test_airflow_listens_on_loopback_only(airflow: AirflowStack) -> None:
    leaders = [psutil.Process(airflow.processes[name].pid) for name in COMPONENTS]
    listening = {
        address
        for leader in leaders
        for process in (leader, *leader.children(recursive=True))
        for address in addresses_of(process)
    }
    assert listening == {"127.0.0.1"}


def test_a_killed_listener_comes_back_at_the_same_place(services: Services) -> None:
    services.kill_listener()
    with pytest.raises(StackError, match="listener ended with status 137"):
        services.processes.check()
    with pytest.raises(httpx.ConnectError):
        services.listener.get("/healthz")
    services.restart_listener()
    assert services.listener.get("/v1/jobs").status_code == 200
    assert services.connection_ids()


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "airflow.db").mkdir()
    with (
        pytest.raises(StackError, match=r"airflow db migrate ended with status 1; the end of .*db-migrate\.log:\n"),
        AirflowStack(tmp_path, tmp_path),
    ):
        pass
    assert not at_home(tmp_path)


def test_nothing_outlives_a_killed_owner_with_tasks_at_work(owner: Owner, tmp_path: Path, dags: Path) -> None:
    with owner("airflow", tmp_path, str(dags)) as process:
        itself = psutil.Process(process.pid)

        def at_work() -> list[psutil.Process] | None:
            found = itself.children(recursive=True)
            return found if any("signal.pause()" in command_line(child) for child in found) else None

        found = wait_until(at_work, "the task's own child", timeout=60)
        process.kill()
        process.wait()
        wait_until(lambda: not [child for child in found if alive(child)], "what it owned to go", timeout=40)
    assert not at_home(tmp_path)


def test_nothing_outlives_the_stack(tmp_path: Path, dags: Path) -> None:
    with AirflowStack(tmp_path, dags) as stack:
        run_id = stack.trigger_dag("hangs")
        stack.wait_for_task("hangs", run_id, "run", {"running"})
        stack.kill("scheduler")
        with pytest.raises(StackError, match="scheduler ended with status 137"):
            stack.processes.check()
        assert len(at_home(tmp_path)) > len(COMPONENTS)
    assert not at_home(tmp_path)
    with pytest.raises((AirflowApiError, RuntimeError)):
        stack.api.dag_known("hangs")


def addresses_of(process: psutil.Process) -> set[str]:
    """Where it listens."""
    try:
        found = process.net_connections("inet")
    except psutil.NoSuchProcess:  # such as a DAG file's parser, which has ended meanwhile
        return set()
    return {connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN}


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # a zombie has none
        return ""


def at_home(home: Path) -> list[psutil.Process]:
    """The processes whose working folder is there: every one of a stack's begins with that."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(home)) and alive(process):
                found.append(process)
        except psutil.Error:
            pass
    return found

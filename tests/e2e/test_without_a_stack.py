"""Airflow's and our commands beside a real database, where Airflow connections are kept as a rule."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def run(*command: str, env: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment to its end."""
    program = str(Path(sys.executable).with_name(command[0]))
    return subprocess.run([program, *command[1:]], env=env, capture_output=True, text=True, timeout=180)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database of Airflow. It takes longer to make one than to copy it."""
    home = tmp_path_factory.mktemp("database")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "AIRBYTE_EVENTS_"))}
    env |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    migrated = run("airflow", "db", "migrate", env=env)
    assert migrated.returncode == 0, migrated.stderr
    return home / "airflow.db"


@pytest.fixture
def airbyte(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An Airflow with a database that knows a simulated Airbyte; the address of that."""
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "AIRBYTE_EVENTS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(EXAMPLES))
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__POLL_INTERVAL", "1")
    program = str(Path(sys.executable).with_name("airbyte-events"))
    command = [program, "simulate", "--port", "0", "--json", "--duration", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["api_url"]
            shutil.copy(database, tmp_path)
            added = run(
                "airflow", "connections", "add", "airbyte_default", "--conn-type", "airbyte", "--conn-host", url
            )
            assert added.returncode == 0, added.stderr
            yield url
        finally:
            process.terminate()


def test_a_connection_in_the_database_is_found(airbyte: str) -> None:
    tested = run("airflow", "dags", "test", "example_deferrable")
    assert tested.returncode == 0, tested.stdout[-4000:]
    examined = run("airbyte-events", "doctor", "--airflow")
    assert f"Airflow airbyte_default: Airbyte at {airbyte} responds" in examined.stdout, examined.stdout


FOR_ONE_CONNECTION = """
from airflow.sdk import DAG
from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

with DAG("ends_early", schedule=None):
    AirbyteTriggerSyncOperator(
        task_id="sync",
        connection_id={connection!r},
        deferrable=True,
        start_from_trigger=True,
        end_from_trigger=True,
        on_conflict="wait",
    )
"""


@pytest.fixture
def ends_early(airbyte: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the Airbyte, one of whose connections a DAG has a task for."""
    with httpx.Client(base_url=airbyte) as http:
        connections = http.get("/connections").raise_for_status().json()["data"]
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "ends_early.py").write_text(FOR_ONE_CONNECTION.format(connection=connections[0]["connectionId"]))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(folder))
    return airbyte


def jobs_of(airbyte: str) -> list[tuple[int, str, str]]:
    with httpx.Client(base_url=airbyte) as http:
        jobs = http.get("/jobs").raise_for_status().json()["data"]
    return sorted((job["jobId"], job["jobType"], job["status"]) for job in jobs)


@pytest.mark.parametrize(
    "command",
    [("dags", "test", "ends_early"), ("tasks", "test", "ends_early", "sync")],
    ids=["dags test", "tasks test"],
)
def test_a_task_that_begins_and_ends_in_the_triggerer_can_be_tried_without_one(
    ends_early: str, command: tuple[str, ...]
) -> None:
    """Airflow hands over no more than the state of an event that ends a task, and none of what was given to defer()."""
    tested = run("airflow", *command)
    assert tested.returncode == 0, tested.stdout[-4000:] + tested.stderr[-4000:]
    assert "Traceback" not in tested.stdout + tested.stderr
    assert jobs_of(ends_early) == [(1, "sync", "succeeded")]


def test_a_task_that_waits_for_its_turn_can_be_tried_without_a_triggerer(ends_early: str) -> None:
    with httpx.Client(base_url=ends_early) as http:
        connections = http.get("/connections").json()["data"]
        other = {"connectionId": connections[0]["connectionId"], "jobType": "reset"}
        http.post("/jobs", json=other).raise_for_status()
    tested = run("airflow", "dags", "test", "ends_early")
    assert tested.returncode == 0, tested.stdout[-4000:] + tested.stderr[-4000:]
    assert [(kind, status) for _, kind, status in jobs_of(ends_early)] == [
        ("reset", "succeeded"),
        ("sync", "succeeded"),
    ]


def test_with_openlineage_the_dag_imports_and_the_task_ends_in_a_worker(
    ends_early: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow refuses to import a DAG that would end tasks in the triggerer where a plugin listens to tasks: the worker
    has the listener send the lineage."""
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps({"type": "console"}))
    listed = run("airflow", "dags", "list-import-errors")
    assert "No data found" in listed.stdout, listed.stdout + listed.stderr
    tested = run("airflow", "dags", "test", "ends_early")
    assert tested.returncode == 0, tested.stdout[-4000:]
    assert jobs_of(ends_early) == [(1, "sync", "succeeded")]

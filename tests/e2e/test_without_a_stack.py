"""Airflow's and our commands beside a real database, where Airflow connections are kept as a rule."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment to its end."""
    program = str(Path(sys.executable).with_name(command[0]))
    return subprocess.run([program, *command[1:]], env=os.environ, capture_output=True, text=True, timeout=180)


@pytest.fixture
def airbyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
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
            migrated = run("airflow", "db", "migrate")
            assert migrated.returncode == 0, migrated.stderr
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
    assert f"Airflow airbyte_default: Airbyte at {airbyte} answers" in examined.stdout, examined.stdout

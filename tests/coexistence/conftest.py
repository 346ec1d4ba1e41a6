"""An Airflow with the official provider and this one, its database, and a simulated Airbyte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In the environment of what is run."""
    home = tmp_path_factory.mktemp("airflow")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_HOME", str(home))
        environment.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        environment.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{home}/airflow.db")
        environment.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(Path(__file__).with_name("dags")))
        environment.setenv("AIRFLOW__CORE__UNIT_TEST_MODE", "False")
        run("airflow", "db", "migrate")
        yield home


def run(*command: str) -> str:
    """Run a program of this environment to its end.

    :return: what it printed.
    """
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([str(program), *command[1:]], env=os.environ, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def airbyte(airflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """The control API of a simulator, known to Airflow as ``airbyte_default``."""
    program = str(Path(sys.executable).with_name("airbyte-events"))
    command = [program, "simulate", "--port", "0", "--json", "--duration", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        monkeypatch.setenv(
            "AIRFLOW_CONN_AIRBYTE_DEFAULT",
            json.dumps({"conn_type": "airbyte", "host": facts["api_url"], "extra": {"timeout": 20}}),
        )
        monkeypatch.setenv("AIRBYTE_CONNECTION", facts["connections"][0])
        try:
            with httpx.Client(base_url=facts["control_url"]) as control:
                yield control
        finally:
            process.terminate()

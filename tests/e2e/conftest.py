"""One Airflow for all end-to-end tests, and beside it a simulated Airbyte with a listener.

The stacks are those of the demo. Airflow knows the addresses of the other two from its start, but runs without them:
a test asks for what it needs.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow_stack import AirflowStack
from services import Addresses, Services

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "deploy" / "demo"

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

RACE = pytest.mark.flaky(
    reruns=1,
    reason="Airflow fails a task whose trigger fires before the scheduler saw the worker end (apache/airflow#72716)",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and "airflow" in item.fixturenames:
            item.add_marker(RACE)


@pytest.fixture(scope="session")
def addresses() -> Addresses:
    return Addresses.choose()


@pytest.fixture(scope="session")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAG folder with the tests' DAGs, the demo's and the documentation's."""
    folder = tmp_path_factory.mktemp("dags")
    (folder / "tests").symlink_to(ROOT / "tests" / "e2e" / "dags")
    (folder / "demo").symlink_to(DEMO / "dags")
    (folder / "examples").symlink_to(ROOT / "docs" / "examples")
    return folder


@pytest.fixture(scope="session")
def airflow(addresses: Addresses, dags: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStack]:
    """Airflow, up and healthy, for the whole session."""
    home = tmp_path_factory.mktemp("airflow")
    settings = {"AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}
    with AirflowStack(home, dags, connections=addresses.airflow_connections(), settings=settings) as stack:
        yield stack


@pytest.fixture(scope="session")
def running_services(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """One simulator for the whole session: as from an Airbyte, no job id comes twice.

    The listener looks at Airbyte once an hour: what completes a task sooner was pushed.
    """
    home = tmp_path_factory.mktemp("services")
    with Services(addresses, home, connections=50, duration=10.0, poll_interval=3600.0) as services:
        yield services


@pytest.fixture
def services(running_services: Services) -> Services:
    """Simulator and listener, both up.

    ``kill_listener()`` and ``restart_listener()`` are for the middle of a wait; the next test finds it up again.
    ``airbyte`` and ``listener`` are HTTP clients of the two.
    """
    if running_services.processes["listener"].status is not None or not running_services.listener_as_made:
        running_services.restart_listener()
    return running_services


@contextmanager
def owning(kind: str, home: Path, argument: str) -> Iterator[subprocess.Popen[str]]:
    """``owner.py`` as a process of its own, once it is ready; it is killed with the block."""
    command = [sys.executable, str(Path(__file__).with_name("owner.py")), kind, str(home), argument]
    log = home / "owner.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as owner,
    ):
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "ready\n", log.read_text()
            yield owner
        finally:
            owner.kill()


@pytest.fixture
def owner() -> Callable[[str, Path, str], AbstractContextManager[subprocess.Popen[str]]]:
    return owning

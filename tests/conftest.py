"""What all tests share: both event loops, and an HTTP server that answers by a script.

What needs a newer Airflow than the lowest supported one says so, test or module:
``@pytest.mark.needs_airflow(3, 3, "the task state store")``.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version

import pytest

from support.servers import ScriptedServer, serve

# Airflow reads these when it is imported: no setting of another Airflow reaches it, and nothing of that is touched.
for _name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[_name]
# No settings that somebody keeps on this machine are read, either.
for _name in ("AIRFLOW_HOME", "XDG_DATA_HOME"):
    os.environ[_name] = tempfile.mkdtemp(prefix="airbyte-events-tests-")
    atexit.register(shutil.rmtree, os.environ[_name], ignore_errors=True)
# A shell script has commands in its background ignore Ctrl-C, and what they start does too: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loop",
        choices=["asyncio", "trio", "both"],
        default="both",
        help="of tests that run on either event loop, run those on this one",
    )
    parser.addoption("--pgbouncer", action="store_true", help="stores reach PostgreSQL by way of pgbouncer")


def pytest_configure(config: pytest.Config) -> None:
    what = "needs_airflow(major, minor, feature): skipped, with the feature as the reason, on an Airflow that is older"
    config.addinivalue_line("markers", what)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs_airflow"):
        major, minor, feature = marker.args
        if (major, minor) > tuple(int(part) for part in version("apache-airflow").split(".")[:2]):
            pytest.skip(f"{feature} came with Airflow {major}.{minor}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the event loop that ``--loop`` names, and those that run on one alone."""
    if (loop := config.getoption("--loop")) == "both":
        return
    others = {item for item in items if isinstance(item, pytest.Function) and _loop_of(item) not in (None, loop)}
    config.hook.pytest_deselected(items=list(others))
    items[:] = [item for item in items if item not in others]


def _loop_of(item: pytest.Function) -> str | None:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("anyio_backend")


@pytest.fixture(scope="session")
def postgres_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """A database of a PostgreSQL server, for schemas with names of their own: of the one that the environment variable
    names, or of one that runs meanwhile. Environments without the driver do without these tests."""
    pytest.importorskip("psycopg", reason="the environment has no PostgreSQL driver")
    if url := os.environ.get("AIRBYTE_EVENTS_TEST_POSTGRES_URL"):
        yield url
        return
    from postgres_server import running

    with running() as server:
        if not pytestconfig.getoption("--pgbouncer"):
            yield server.url()
            return
        from support.pgbouncer import pgbouncer

        with pgbouncer(server) as url:
            yield url


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    async with serve(scripted):
        yield scripted

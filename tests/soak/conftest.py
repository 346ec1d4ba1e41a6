"""Crash, power loss, faults on the wire, load: real processes on real sockets.

``make soak`` runs all rounds, ``make soak ARGS=--share=0.25`` a quarter of them, ``pytest tests/soak`` a few. Each
tells what it did in the table at the end. What is left to chance comes from one seed, which is told, too: ``make soak
ARGS=--seed=N`` repeats a run as far as the machine's own timing lets it.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from rich.table import Table

from airbyte_events.simulator import Simulator, serve_simulator
from postgres_server import PostgresServer
from postgres_server import running as running_postgres
from soak.scene import Run
from support.loops import anyio_backend as anyio_backend

COLUMNS = ("rounds", "faults", "sent", "acknowledged", "events", "seen", "lost", "doubled", "seconds")
ROWS = pytest.StashKey[list[dict[str, Any]]]()
SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("soak")
    group.addoption("--soak", action="store_true", help="all rounds of the tests in tests/soak, not a few")
    group.addoption("--share", type=float, default=1.0, help="with --soak: the share of the rounds, from 0 to 1")
    group.addoption("--seed", type=int, help="of what the tests in tests/soak leave to chance")


def pytest_configure(config: pytest.Config) -> None:
    given = config.getoption("--seed")
    config.stash[SEED] = random.SystemRandom().randrange(10**6) if given is None else given
    config.stash[ROWS] = []
    if config.getoption("--soak"):
        # As Ctrl-C does: what was started is ended.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    config.addinivalue_line("markers", "long: runs with --soak alone")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.stash[ROWS]:
        return
    table = Table(title=f"soak, seed {config.stash[SEED]}", title_justify="left", caption_justify="left")
    table.add_column("part")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    table.add_column("and")
    for row in config.stash[ROWS]:
        table.add_row(row["part"], *(_cell(row.get(name)) for name in COLUMNS), row.get("more", ""))
    terminalreporter.write_line("")
    console = Console(file=terminalreporter._tw._file, width=None if sys.stdout.isatty() else 200)
    console.print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else f"{value:,}"


@pytest.fixture(scope="session")
def soak(pytestconfig: pytest.Config) -> bool:
    """Whether there is time for all rounds."""
    return bool(pytestconfig.getoption("--soak"))


@pytest.fixture(scope="session")
def rounds(pytestconfig: pytest.Config, soak: bool) -> Callable[[int, int], int]:
    """``rounds(100, 2)`` are 100 if there is time for all, or the share of them that ``--share`` names, else 2."""
    share: float = pytestconfig.getoption("--share")
    return lambda every, few: max(1, round(share * every)) if soak else few


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """The same in every run with the same seed, whichever tests run."""
    return random.Random(f"{request.config.stash[SEED]} {request.node.name}")


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Puts a row into the table: ``report("crash", rounds=3, lost=0)``."""
    began = time.monotonic()

    def add(part: str, **figures: Any) -> None:
        request.config.stash[ROWS].append({"part": part, "seconds": time.monotonic() - began, **figures})

    return add


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A server of the test's own: it may be killed."""
    with running_postgres() as server:
        yield server


@pytest.fixture
async def airbyte(anyio_backend: str) -> AsyncIterator[Simulator]:
    async with serve_simulator(Simulator(max_calls=50)) as simulator:
        yield simulator


@pytest.fixture
async def http(anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(trust_env=False, timeout=20, limits=limits) as client:
        yield client


@pytest.fixture
def run(
    airbyte: Simulator,
    http: httpx.AsyncClient,
    tmp_path: Path,
    dice: random.Random,
    rounds: Callable[[int, int], int],
    report: Callable[..., None],
) -> Run:
    return Run(airbyte=airbyte, http=http, folder=tmp_path, dice=dice, rounds=rounds, report=report)

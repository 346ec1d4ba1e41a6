"""Two ways to run these tests: ``fast``, the same few cases every time, and ``fuzz``, many new ones each time, within
the seconds that ``--fuzz-seconds`` gives, told at the end."""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.errors import Flaky, StopTest, UnsatisfiedAssumption

# A fixture serves all cases of a test, and a busy machine is no finding.
_SHARED: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("fast", derandomize=True, database=None, max_examples=25, **_SHARED)
settings.register_profile("fuzz", database=None, print_blob=True, max_examples=1_000_000, **_SHARED)
settings.load_profile("fast")


@dataclass
class Run:
    """What one test did.

    :param until: after which no further case is tried.
    """

    until: float
    cases: int = 0
    seconds: float = 0.0
    failed: bool = False
    over: bool = False


RUNS: dict[str, Run] = {}
BEGAN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=float, help="so long all fuzz tests together may look for new cases")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Count a test's cases, and end its search when its share of the time is over."""
    seconds = pyfuncitem.config.getoption("--fuzz-seconds")
    function = getattr(pyfuncitem.obj, "hypothesis", None)
    if seconds is None or function is None:
        return (yield)
    share = seconds / sum(hasattr(item.obj, "hypothesis") for item in _functions(pyfuncitem.session))
    began = time.monotonic()
    run = RUNS[pyfuncitem.nodeid] = Run(until=began + share)
    original = function.inner_test
    function.inner_test = _counting(original, run)
    try:
        return (yield)
    except (pytest.skip.Exception, Flaky):
        # To end before data is drawn that was drawn the time before is flaky, to Hypothesis.
        if run.over and not run.failed:
            return True
        raise
    finally:
        function.inner_test = original
        run.seconds = time.monotonic() - began


def _functions(session: pytest.Session) -> list[pytest.Function]:
    return [item for item in session.items if isinstance(item, pytest.Function)]


def _counting(test: Callable[..., Any], run: Run) -> Callable[..., Any]:
    @contextlib.contextmanager
    def case() -> Iterator[None]:
        # A case that failed is made smaller, however long that takes.
        if not run.failed and time.monotonic() > run.until:
            run.over = True
            pytest.skip("the time is up")  # all that ends a search
        run.cases += 1
        try:
            yield
        except Exception as exc:
            run.failed = not isinstance(exc, (StopTest, UnsatisfiedAssumption))
            raise

    if inspect.iscoroutinefunction(test):

        @functools.wraps(test)
        async def counted_async(*args: Any, **kwargs: Any) -> None:
            with case():
                await test(*args, **kwargs)

        return counted_async

    @functools.wraps(test)
    def counted(*args: Any, **kwargs: Any) -> None:
        with case():
            test(*args, **kwargs)

    return counted


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not RUNS:
        return
    terminalreporter.section("cases, seconds, findings")
    for name, run in RUNS.items():
        terminalreporter.write_line(f"{run.cases:8,} {run.seconds:7.1f} {int(run.failed):2}  {name.partition('::')[2]}")
    cases, findings = sum(run.cases for run in RUNS.values()), sum(run.failed for run in RUNS.values())
    terminalreporter.write_line(f"{cases:8,} {time.monotonic() - BEGAN:7.1f} {findings:2}  in all")

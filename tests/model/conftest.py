"""How many plans are made up, and a summary of what they did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from model.virtual import plans

FEW = {"kept": 4, "lost": 3, "sqlite": 1}
"""Plans by what the listener keeps, for every run of the tests."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plans", type=int, help="plans of each kind; by default a few, which are always the same ones")


@pytest.fixture
def for_each_plan(request: pytest.FixtureRequest) -> Callable[[str, Callable[[list[plans.Step]], None]], None]:
    """Play plans: ``for_each_plan(kind, play_one)``."""

    def run(kind: str, play_one: Callable[[list[plans.Step]], None]) -> None:
        wanted = request.config.getoption("--plans")

        @settings(
            max_examples=wanted or FEW[kind],
            derandomize=wanted is None,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(steps=plans.steps)
        def one(steps: list[plans.Step]) -> None:
            play_one(steps)

        one()

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not plans.done:
        return
    terminalreporter.section("plans in virtual time")
    for name, count in plans.done.most_common():
        terminalreporter.write_line(f"{count:8d} {name.replace('_', ' ')}")

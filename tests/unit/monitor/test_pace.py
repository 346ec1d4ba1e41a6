"""The pace of polling: what Airbyte can bear."""

from __future__ import annotations

import random

import pytest

from airbyte_events.monitor.pace import LONGEST, SHARE, Pace

WANTED = 3.0


def poll(pace: Pace, durations: list[float]) -> list[float]:
    """Return the intervals of polls that take so long."""
    intervals = []
    for duration in durations:
        pace.record(duration)
        intervals.append(pace.interval(WANTED))
    return intervals


@pytest.mark.parametrize("duration", [0.001, 0.1, 0.15])
def test_a_quick_airbyte_is_polled_at_the_wanted_interval(duration: float) -> None:
    assert poll(Pace(), [duration] * 50) == [WANTED] * 50


@pytest.mark.parametrize("duration", [0.2, 1.0, 10.0])
def test_polls_take_a_twentieth_of_the_time(duration: float) -> None:
    assert poll(Pace(), [duration] * 50)[-1] == pytest.approx(SHARE * duration, rel=1e-4)


def test_polls_that_vary_take_a_twentieth_of_the_time_together() -> None:
    varying = random.Random(7)
    durations = [varying.expovariate(2.0) for _ in range(2_000)]
    intervals = poll(Pace(), durations)
    assert sum(durations) / sum(intervals) <= 1.01 / SHARE


def test_one_slow_response_does_not_decide() -> None:
    pace = Pace()
    poll(pace, [0.05] * 20)
    intervals = poll(pace, [2.0] + [0.05] * 10)
    assert max(intervals) < SHARE * 2.0 / 3
    assert intervals[-1] == WANTED


def test_a_response_that_never_ends_counts_up_to_a_limit() -> None:
    assert poll(Pace(), [3600.0] * 50)[-1] == pytest.approx(LONGEST, rel=1e-4)


def test_a_wanted_interval_that_is_longer_stays() -> None:
    pace = Pace()
    poll(pace, [1.0] * 50)
    assert pace.interval(60.0) == 60.0


class TestFailures:
    def test_each_doubles_the_pause_up_to_a_limit(self) -> None:
        pauses = [Pace().pause(WANTED, retry=WANTED, failures=failures) for failures in range(12)]
        assert pauses[:5] == [3, 6, 12, 24, 48]
        assert pauses[-1] == LONGEST

    def test_an_idle_poll_that_failed_is_repeated_sooner(self) -> None:
        assert Pace().pause(300.0, retry=WANTED, failures=1) == 6

    def test_the_limit_is_never_below_an_interval_that_was_set(self) -> None:
        assert Pace().pause(600.0, retry=600.0, failures=3) == 600

    def test_a_slow_airbyte_that_fails_is_given_longer(self) -> None:
        pace = Pace()
        poll(pace, [1.0] * 50)
        assert pace.pause(WANTED, retry=WANTED, failures=1) == pytest.approx(40, rel=1e-4)

    def test_jitter_is_a_factor(self) -> None:
        assert Pace().pause(10.0, retry=10.0, failures=0, jitter=1.1) == pytest.approx(11)

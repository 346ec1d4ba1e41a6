"""The pace of polling: what Airbyte can bear."""

from __future__ import annotations

import random

import pytest

from airbyte_events.monitor.outlook import Outlook
from airbyte_events.monitor.pace import LONGEST, OUTLOOKS, QUICK, SAVED, SHARE, Pace

WANTED = 4.0


def poll(pace: Pace, durations: list[float]) -> list[float]:
    """Return the intervals of polls that take so long."""
    intervals = []
    for duration in durations:
        pace.record(duration)
        intervals.append(pace.interval(WANTED))
    return intervals


@pytest.mark.parametrize("duration", [0.001, 0.1, 0.15])
def test_a_quick_airbyte_is_polled_at_the_wanted_interval(duration: float) -> None:
    assert poll(Pace(lambda: 0.0), [duration] * 50) == [WANTED] * 50


@pytest.mark.parametrize("duration", [0.2, 1.0, 10.0])
def test_polls_take_a_twentieth_of_the_time(duration: float) -> None:
    assert poll(Pace(lambda: 0.0), [duration] * 50)[-1] == pytest.approx(SHARE * duration, rel=1e-4)


def test_polls_that_vary_take_a_twentieth_of_the_time_together() -> None:
    varying = random.Random(7)
    durations = [varying.expovariate(2.0) for _ in range(2_000)]
    intervals = poll(Pace(lambda: 0.0), durations)
    assert sum(durations) / sum(intervals) <= 1.01 / SHARE


def test_one_slow_response_does_not_decide() -> None:
    pace = Pace(lambda: 0.0)
    poll(pace, [0.05] * 20)
    intervals = poll(pace, [2.0] + [0.05] * 10)
    assert max(intervals) < SHARE * 2.0 / 3
    assert intervals[-1] == WANTED


def test_a_response_that_never_ends_counts_up_to_a_limit() -> None:
    assert poll(Pace(lambda: 0.0), [3600.0] * 50)[-1] == pytest.approx(LONGEST, rel=1e-4)


def test_a_wanted_interval_that_is_longer_stays() -> None:
    pace = Pace(lambda: 0.0)
    poll(pace, [1.0] * 50)
    assert pace.interval(60.0) == 60.0


class TestOutlook:
    def pace(self) -> tuple[Pace, list[float]]:
        now = [0.0]
        return Pace(lambda: now[0]), now

    def test_polls_are_more_frequent_near_a_completion_and_less_far_from_it(self) -> None:
        pace, _ = self.pace()
        near, unknown, far = (pace.interval(QUICK, outlook) for outlook in Outlook)
        assert near < QUICK < unknown < far
        # With jitter, a completion that comes far too early is detected within 4 s, too.
        assert far * 1.1 < 4

    @pytest.mark.parametrize("wanted", [1.0, 10.0, 60.0])
    def test_another_interval_is_kept(self, wanted: float) -> None:
        pace, _ = self.pace()
        assert {pace.interval(wanted, outlook) for outlook in Outlook} == {wanted}

    @pytest.mark.parametrize("progress", [0, 1])
    @pytest.mark.parametrize("seed", range(5))
    def test_with_progress_they_are_20_a_minute_in_the_mean_and_a_few_saved_ones(
        self, seed: int, progress: int
    ) -> None:
        """:param progress: requests a minute for progress."""
        varying = random.Random(seed)
        pace, now = self.pace()
        requests = 0
        while now[0] < 3600:
            outlook = varying.choice(list(Outlook))
            for _ in range(varying.randrange(1, 60)):
                pace.bucket.charge()
                requests += 1
                minute, now[0] = now[0] // 60, now[0] + pace.interval(QUICK, outlook)
                for _ in range(progress * int(now[0] // 60 - minute)):
                    pace.bucket.charge()
                    requests += 1
        assert requests <= now[0] / QUICK + SAVED + 1

    def test_without_saved_requests_the_interval_is_the_longest(self) -> None:
        pace, now = self.pace()
        while pace.interval(QUICK, Outlook.NEAR) < QUICK:
            pace.bucket.charge()
            now[0] += OUTLOOKS[Outlook.NEAR]
        assert {pace.interval(QUICK, outlook) for outlook in Outlook} == {OUTLOOKS[Outlook.FAR]}
        # 2.2 s instead of 3 s takes a quarter of a request each.
        assert now[0] > SAVED * OUTLOOKS[Outlook.NEAR] * 3


class TestFailures:
    def test_each_doubles_the_pause_up_to_a_limit(self) -> None:
        pauses = [Pace(lambda: 0.0).pause(WANTED, retry=WANTED, failures=failures) for failures in range(12)]
        assert pauses[:5] == [4, 8, 16, 32, 64]
        assert pauses[-1] == LONGEST

    def test_an_idle_poll_that_failed_is_repeated_sooner(self) -> None:
        assert Pace(lambda: 0.0).pause(300.0, retry=WANTED, failures=1) == 8

    def test_the_limit_is_never_below_an_interval_that_was_set(self) -> None:
        assert Pace(lambda: 0.0).pause(600.0, retry=600.0, failures=3) == 600

    def test_a_slow_airbyte_that_fails_is_given_longer(self) -> None:
        pace = Pace(lambda: 0.0)
        poll(pace, [1.0] * 50)
        assert pace.pause(WANTED, retry=WANTED, failures=1) == pytest.approx(40, rel=1e-4)

    def test_jitter_is_a_factor(self) -> None:
        assert Pace(lambda: 0.0).pause(10.0, retry=10.0, failures=0, jitter=1.1) == pytest.approx(11)

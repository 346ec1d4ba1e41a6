"""Usual durations, and whether a completion is near."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airbyte_events.events import JobEvent
from airbyte_events.monitor.outlook import FAR, LAST, MOST_KINDS, NEAR, Kind, Outlook, UsualDurations
from support.events import event_of

CONNECTION = "a"
KIND = Kind(CONNECTION, "sync")


def success(job_id: int, **values: Any) -> JobEvent:
    return replace(event_of(job_id), **{"connection_id": CONNECTION} | values)


def learnt(*seconds: float) -> UsualDurations:
    durations = UsualDurations()
    for job_id, each in enumerate(seconds, 1):
        durations.record(success(job_id, duration_seconds=each))
    return durations


@pytest.mark.parametrize(
    ("share", "outlook"),
    [
        (0, Outlook.FAR),
        (FAR - 0.01, Outlook.FAR),
        (FAR + 0.01, Outlook.UNKNOWN),
        (NEAR[0], Outlook.NEAR),
        (1, Outlook.NEAR),
        (NEAR[1], Outlook.NEAR),
        (NEAR[1] + 0.01, Outlook.UNKNOWN),
        (100, Outlook.UNKNOWN),
    ],
)
def test_follows_from_the_elapsed_share(share: float, outlook: Outlook) -> None:
    assert learnt(300.0).outlook(KIND, share * 300) is outlook


def test_is_unknown_for_other_jobs() -> None:
    durations = learnt(300.0)
    assert durations.outlook(None, 1) is Outlook.UNKNOWN
    assert durations.outlook(Kind("b", "sync"), 1) is Outlook.UNKNOWN
    assert durations.outlook(Kind(CONNECTION, "reset"), 1) is Outlook.UNKNOWN


def test_one_that_was_slow_does_not_decide() -> None:
    assert learnt(300, 310, 5000).outlook(KIND, 310) is Outlook.NEAR


def test_the_last_ones_count() -> None:
    assert learnt(*[5000] * LAST, *[300] * LAST).outlook(KIND, 300) is Outlook.NEAR


def test_a_job_that_lists_repeat_counts_once() -> None:
    durations = learnt(300, 300, 300)
    for _ in range(10):
        durations.record(success(4, duration_seconds=5000.0))
    assert durations.outlook(KIND, 300) is Outlook.NEAR


@pytest.mark.parametrize("values", [{"duration_seconds": None}, {"connection_id": None}])
def test_nothing_is_learnt_from_unknown_values(values: dict[str, Any]) -> None:
    durations = UsualDurations()
    durations.record(success(1, **{"duration_seconds": 300.0} | values))
    assert durations.outlook(KIND, 300) is Outlook.UNKNOWN


def test_forgets_the_oldest_connections() -> None:
    durations = learnt(300)
    for number in range(MOST_KINDS):
        durations.record(success(number + 10, connection_id=f"c{number}", duration_seconds=300.0))
    assert durations.outlook(KIND, 300) is Outlook.UNKNOWN
    assert durations.outlook(Kind(f"c{MOST_KINDS - 1}", "sync"), 300) is Outlook.NEAR

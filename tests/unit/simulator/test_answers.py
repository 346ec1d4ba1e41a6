"""How Airbyte writes times and durations."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airbyte_events.events import parse_time
from airbyte_events.simulator.answers import cut, java_duration, java_instant, java_time

START = datetime(2024, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("seconds", "microseconds", "text"),
    [
        (0, 0, "2024-01-01T00:00Z"),
        (1, 0, "2024-01-01T00:00:01Z"),
        (0, 120_000, "2024-01-01T00:00:00.120Z"),
        (1, 123_456, "2024-01-01T00:00:01.123456Z"),
        (1, 100, "2024-01-01T00:00:01.000100Z"),
    ],
)
def test_times_as_java_prints_them(seconds: int, microseconds: int, text: str) -> None:
    moment = START + timedelta(seconds=seconds, microseconds=microseconds)
    assert java_time(moment.astimezone(timezone(timedelta(hours=2)))) == text
    assert parse_time(text) == moment


def test_instants_always_have_seconds() -> None:
    assert java_instant(START + timedelta(microseconds=5)) == "2024-01-01T00:00:00Z"


def test_the_precision_goes_by_the_job() -> None:
    moment = START.replace(microsecond=123_456)
    assert [cut(moment, job_id).microsecond for job_id in (3, 1, 2)] == [0, 123_000, 123_456]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "PT0S"), (59, "PT59S"), (60, "PT1M"), (3601, "PT1H1S"), (90_061, "PT25H1M1S")]
)
def test_durations(seconds: int, text: str) -> None:
    assert java_duration(seconds) == text

"""How Airbyte writes times and durations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from airbyte_events._utils.times import parse_time
from airbyte_events.simulator.responses import java_duration, java_instant, java_time

START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "2024-01-01T00:00Z"),
        (1, "2024-01-01T00:00:01Z"),
        (0.12, "2024-01-01T00:00Z"),
        (1.999999, "2024-01-01T00:00:01Z"),
        (60, "2024-01-01T00:01Z"),
    ],
)
def test_times_are_whole_seconds_as_java_prints_them(seconds: float, text: str) -> None:
    moment = START + timedelta(seconds=seconds)
    assert java_time(moment.astimezone(timezone(timedelta(hours=2)))) == text
    assert parse_time(text) == START + timedelta(seconds=int(seconds))


def test_instants_always_have_seconds() -> None:
    assert java_instant(START + timedelta(microseconds=5)) == "2024-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "PT0S"), (59, "PT59S"), (60, "PT1M"), (3601, "PT1H1S"), (90_061, "PT25H1M1S")]
)
def test_durations(seconds: int, text: str) -> None:
    assert java_duration(seconds) == text

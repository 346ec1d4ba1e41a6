"""What is written at the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer

from airbyte_events._utils.times import duration, utcnow
from airbyte_events.cli import options
from airbyte_events.events import JobStatus


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), (" 1d ", 86400), ("0", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert options.seconds("--timeout", text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1w", "1h30m", "1e3", "١"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        options.seconds("--timeout", text)


def test_numbers_and_words_say_what_to_write() -> None:
    assert (options.whole(1, 20)("20"), options.decimal(0)("1.5"), options.choice(JobStatus)("failed")) == (
        *(20, 1.5),
        JobStatus.FAILED,
    )
    for text in ("0", "21", "-1", "1.5", "many", "9" * 30):
        with pytest.raises(typer.BadParameter, match=f"{text} is not a whole number from 1 to 20"):
            options.whole(1, 20)(text)
    for text in ("-1", "nan", "inf", "long"):
        with pytest.raises(typer.BadParameter, match=f"{text} is not a number of at least 0"):
            options.decimal(0)(text)
    with pytest.raises(typer.BadParameter, match="done is not one of pending, queued, running"):
        options.choice(JobStatus)("done")


def test_since_is_a_time_or_how_long_ago() -> None:
    assert options.since("--since", "2026-01-31T08:00Z") == datetime(2026, 1, 31, 8, tzinfo=UTC)
    ago = options.since("--since", "2h")
    assert timedelta(0) <= utcnow() - timedelta(hours=2) - ago < timedelta(minutes=1)
    for text in ("soon", "999999999d", "2026-13-01T00:00Z"):
        with pytest.raises(typer.BadParameter):
            options.since("--since", text)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (0.0, "0 ms"),
        (0.85, "850 ms"),
        (12.34, "12.3 s"),
        (60.4, "1 min"),
        (250.0, "4 min 10 s"),
        (3600.0, "1 h"),
        (90061.0, "1 d 1 h"),
    ],
)
def test_durations_as_people_say_them(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said

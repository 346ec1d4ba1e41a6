"""How far Airbyte's clock is ahead, by the answer to a request that may have taken its time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airbyte_events.airbyte import JobPage

ASKED = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = 3600.0


@pytest.mark.parametrize(
    ("stamped", "took", "ahead"),
    [
        (0, 0.1, 0),
        (0, 60, 0),  # as the request came in
        (60, 60, 0),  # as the answer went out
        (30, 60, 0),
        (60, 0, 60),
        (2 * HOUR, 0, 2 * HOUR),
        (-2 * HOUR, 0, -2 * HOUR + 1),  # whole seconds, cut off
        (2 * HOUR, 60, 2 * HOUR - 60),
        (-60, 60, -59),
    ],
)
def test_the_length_of_a_request_is_no_difference_of_clocks(stamped: float, took: float, ahead: float) -> None:
    served_at, answered = ASKED + timedelta(seconds=stamped), ASKED + timedelta(seconds=took)
    assert JobPage(jobs=(), served_at=served_at).ahead(ASKED, answered) == timedelta(seconds=ahead)


def test_an_airbyte_that_does_not_say_the_time_has_ours() -> None:
    assert JobPage(jobs=()).ahead(ASKED, ASKED) == timedelta(0)

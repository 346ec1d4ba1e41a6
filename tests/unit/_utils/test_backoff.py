"""How long is waited after failures."""

from __future__ import annotations

import pytest

from airbyte_events._utils.backoff import pause


@pytest.mark.parametrize(("failures", "most"), [(0, 0.5), (1, 1.0), (3, 4.0), (5, 15.0), (100_000, 15.0)])
def test_a_pause_doubles_up_to_the_longest_however_many_failures(failures: int, most: float) -> None:
    pauses = [pause(failures, first=0.5, longest=15.0) for _ in range(100)]
    assert most / 2 <= min(pauses)
    assert max(pauses) <= most
    assert len(set(pauses)) > 1

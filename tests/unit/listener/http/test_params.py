"""Pages of lists: so many items, and so many bytes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from airbyte_events.listener.http.params import PAGE_BYTES, page

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "weights", [[1] * 1_200, [300] * 700, [50_000] * 100, [3 * PAGE_BYTES] * 5, [10] * 300 + [90_000] * 90, []]
)
@pytest.mark.parametrize("limit", [1, 24, 25, 26, 1_000])
async def test_i6_pages_hold_everything_once_and_so_many_bytes(weights: list[int], limit: int) -> None:
    items = list(enumerate(weights, 1))[::-1]
    largest = 0

    async def read(count: int, before: int | None) -> Sequence[tuple[int, int]]:
        nonlocal largest
        some = [item for item in items if before is None or item[0] < before][:count]
        largest = max(largest, sum(weight for _, weight in some))
        return some

    seen: list[tuple[int, int]] = []
    place: int | None = None
    while True:
        found, place = await page(read, limit, place, lambda item: item[0], lambda item: item[1])
        assert len(found) <= limit
        assert sum(weight for _, weight in found[:-1]) <= PAGE_BYTES + 25 * max(weights, default=0)
        seen += found
        if place is None:
            break
        assert found
    assert seen == items
    # No more is in memory than a page, and a step that turns out to be of larger ones.
    assert largest <= PAGE_BYTES + 200 * max(weights, default=0)

"""Percentiles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


def percentiles(seconds: Collection[float]) -> dict[str, float | int | None]:
    """``p50``, ``p95`` and ``p99`` by the nearest rank, the ``longest``, the ``count``, and how many are ``missing``.

    :param seconds: infinity for what had not come when the measurement ended; a percentile that falls there is None.
    """
    ordered = sorted(seconds)

    def rank(share: float) -> float | None:
        found = ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.inf
        return found if math.isfinite(found) else None

    return {
        "p50": rank(0.5),
        "p95": rank(0.95),
        "p99": rank(0.99),
        "longest": rank(1.0),
        "count": len(ordered),
        "missing": sum(math.isinf(each) for each in ordered),
    }

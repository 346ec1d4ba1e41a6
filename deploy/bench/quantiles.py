"""Percentiles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


def percentiles(values: Collection[float]) -> dict[str, float | int | None]:
    """``p50``, ``p95`` and ``p99`` by the nearest rank, the ``longest`` and the ``count``."""
    ordered = sorted(values)

    def rank(share: float) -> float | None:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None

    return {"p50": rank(0.5), "p95": rank(0.95), "p99": rank(0.99), "longest": rank(1.0), "count": len(ordered)}

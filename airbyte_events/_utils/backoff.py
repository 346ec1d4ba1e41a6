"""The delay before a retry."""

from __future__ import annotations

import random
from collections.abc import Callable


def pause(
    failures: int,
    *,
    first: float = 1.0,
    longest: float = 60.0,
    least: float = 0.5,
    random: Callable[[], float] = random.random,
) -> float:
    """Return the seconds to wait: exponential back-off with jitter.

    :param failures: in a row, before this one.
    :param first: the largest delay after the first failure, in seconds.
    :param longest: the largest delay in seconds.
    :param least: the share of the delay that is not random; 0 if many callers return at the same time.
    :param random: from 0 to 1.
    """
    # An unbounded power overflows after a thousand failures.
    return (least + (1 - least) * random()) * min(longest, first * 2.0 ** min(failures, 30))

"""How long to wait before what has failed is tried again."""

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
    """Return the seconds to wait: twice as many with each failure, less a random share, so that callers spread.

    :param failures: how many there have been in a row.
    :param first: seconds, the most after none.
    :param longest: seconds, the most after any number.
    :param least: the share of that which is waited in any case: 0 where many callers come back at once.
    :param random: from 0 to 1.
    """
    # A power without bounds overflows after a thousand failures.
    return (least + (1 - least) * random()) * min(longest, first * 2.0 ** min(failures, 30))

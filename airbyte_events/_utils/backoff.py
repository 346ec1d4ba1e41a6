"""How long to wait before what has failed is tried again."""

from __future__ import annotations

import random


def pause(failures: int, *, first: float = 1.0, longest: float = 60.0, least: float = 0.5) -> float:
    """Seconds to wait: twice as long with each failure, and by chance less, so that many do not come back together.

    :param failures: how many there have been in a row.
    :param first: seconds, the most after none.
    :param longest: seconds, the most after any number.
    :param least: the share of that which is waited in any case: 0 where a crowd comes back.
    """
    # A power without bounds overflows after a thousand failures.
    return random.uniform(least, 1) * min(longest, first * 2.0 ** min(failures, 30))  # noqa: S311

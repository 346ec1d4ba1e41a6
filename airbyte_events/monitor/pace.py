"""The pace of polling: an interval that follows what Airbyte can bear."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from airbyte_events._utils.token_bucket import TokenBucket
from airbyte_events.monitor.outlook import Outlook

QUICK = 3.0
"""Seconds, the interval that follows the outlook: 20 requests a minute in the mean, those for progress included.
Other intervals are kept."""

OUTLOOKS = {Outlook.NEAR: 2.2, Outlook.UNKNOWN: 3.2, Outlook.FAR: 3.6}
"""Seconds, instead of :data:`QUICK`. What is saved while none is near is spent while one is near, and on other requests
than polls. The longest one while none is saved."""

SAVED = 10
"""The most requests that are saved."""

SHARE = 20
"""Polls take at most one part in so many of the time."""

LONGEST = 300.0
"""Seconds, the most by which slow responses or failures lengthen an interval."""

_WEIGHT = 0.25
_MOST_FAILURES = 10


class Pace:
    """The intervals between the beginnings of two polls of one instance.

    :param clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = anyio.current_time) -> None:
        # Seconds, smoothed, so that one slow response does not decide.
        self._duration = 0.0
        self.bucket = TokenBucket(rate=1 / QUICK, burst=SAVED, debt=SAVED, clock=clock)
        """The saved requests. All are charged, except for further pages of a list."""

    def record(self, seconds: float) -> None:
        self._duration += (min(seconds, LONGEST / SHARE) - self._duration) * _WEIGHT

    def interval(self, wanted: float, outlook: Outlook = Outlook.UNKNOWN) -> float:
        """Return the wanted interval, or a longer one where polls take more than their share of it.

        :param wanted: seconds.
        """
        if wanted == QUICK:
            wanted = OUTLOOKS[outlook if self.bucket.left else Outlook.FAR]
        return max(wanted, SHARE * self._duration)

    def pause(
        self,
        wanted: float,
        *,
        retry: float,
        failures: int,
        jitter: float = 1.0,
        outlook: Outlook = Outlook.UNKNOWN,
    ) -> float:
        """Return the seconds from one poll to the next, from the end of the first one if that failed.

        :param wanted: the interval while polls succeed.
        :param retry: the longest interval that a back-off begins with: failed polls are repeated sooner than idle ones.
        :param failures: failed polls in a row; each doubles the pause.
        """
        if not failures:
            return self.interval(wanted, outlook) * jitter
        doubled = self.interval(min(wanted, retry)) * 2.0 ** min(failures, _MOST_FAILURES) * jitter
        return min(doubled, max(LONGEST, retry))

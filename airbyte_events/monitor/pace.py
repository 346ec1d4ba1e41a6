"""The pace of polling: an interval that follows what Airbyte can bear."""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 20
"""Polls take at most one part in so many of the time."""

LONGEST = 300.0
"""Seconds, the most by which slow responses or failures lengthen an interval."""

_WEIGHT = 0.25
_MOST_FAILURES = 10


@dataclass(slots=True)
class Pace:
    """The intervals between the beginnings of two polls of one instance.

    :param duration: seconds that a poll takes, smoothed, so that one slow response does not decide.
    """

    duration: float = 0.0

    def record(self, seconds: float) -> None:
        """Record how long a successful poll took."""
        self.duration += (min(seconds, LONGEST / SHARE) - self.duration) * _WEIGHT

    def interval(self, wanted: float) -> float:
        """Return the wanted interval, or a longer one where polls take more than their share of it.

        :param wanted: seconds.
        """
        return max(wanted, SHARE * self.duration)

    def pause(self, wanted: float, *, retry: float, failures: int, jitter: float = 1.0) -> float:
        """Return the seconds from one poll to the next, from the end of the first one if that failed.

        :param wanted: the interval while polls succeed.
        :param retry: the longest interval that a back-off begins with: failed polls are repeated sooner than idle ones.
        :param failures: failed polls in a row; each doubles the pause.
        :param jitter: a factor.
        """
        if not failures:
            return self.interval(wanted) * jitter
        doubled = self.interval(min(wanted, retry)) * 2.0 ** min(failures, _MOST_FAILURES) * jitter
        return min(doubled, max(LONGEST, retry))

"""How often something may be done: so many times at once, and then so many times a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import anyio


class TokenBucket:
    """A token bucket.

    :param rate: how many times a second in the long run.
    :param burst: how many times at once after a rest.
    :param clock: seconds; the event loop's unless given.
    """

    __slots__ = ("_at", "_burst", "_clock", "_left", "_rate")

    def __init__(self, *, rate: float, burst: int, clock: Callable[[], float] = anyio.current_time) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._at = float("-inf")

    @property
    def left(self) -> int:
        """How many times it may be done right now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return max(0, int(self._left))

    def take(self, wanted: int = 1) -> int:
        """Do it as often as wanted, or as often as may be.

        :return: how often that is.
        """
        taken = min(wanted, self.left)
        self._left -= taken
        return taken

    def charge(self) -> None:
        """Count what was done once, allowed or not: beyond what may be done, later times have to wait for it."""
        _ = self.left
        self._left -= 1

    async def wait(self) -> None:
        """Return when it may be done at least once; nothing is taken."""
        while self.left < 1:  # noqa: ASYNC110  # time is all that it waits for
            await anyio.sleep((1 - self._left) / self._rate)


_charged: ContextVar[TokenBucket | None] = ContextVar("_charged", default=None)


@contextmanager
def charged(bucket: TokenBucket) -> Iterator[None]:
    """Charge a bucket for every request that this task, and those that it starts, send meanwhile.

    Retries and requests for a token count as well: only who sends them knows what one call costs.
    """
    before = _charged.set(bucket)
    try:
        yield
    finally:
        _charged.reset(before)


def charge() -> None:
    """Charge a request to the bucket that this task is :func:`charged` to, if to any."""
    if (bucket := _charged.get()) is not None:
        bucket.charge()

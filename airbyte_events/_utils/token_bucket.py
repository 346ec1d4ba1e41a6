"""Rate limits by token bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import anyio


class TokenBucket:
    """A token bucket.

    :param rate: tokens per second.
    :param burst: the capacity.
    :param clock: returns seconds; the event loop's clock by default.
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
        """The number of tokens available now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return max(0, int(self._left))

    def take(self, wanted: int = 1) -> int:
        """Take tokens, as many as are wanted and available.

        :return: their number.
        """
        taken = min(wanted, self.left)
        self._left -= taken
        return taken

    def charge(self) -> None:
        """Take a token even if none is available: later calls wait longer for it."""
        _ = self.left
        self._left -= 1

    async def wait(self) -> None:
        """Wait until a token is available, without taking it."""
        while self.left < 1:  # noqa: ASYNC110  # only time passes
            await anyio.sleep((1 - self._left) / self._rate)


_charged: ContextVar[TokenBucket | None] = ContextVar("_charged", default=None)


@contextmanager
def charged(bucket: TokenBucket) -> Iterator[None]:
    """Charge a bucket for every request that this task and its child tasks send in the block, retries included."""
    before = _charged.set(bucket)
    try:
        yield
    finally:
        _charged.reset(before)


def charge() -> None:
    """Charge a request to the bucket of the enclosing :func:`charged`, if there is one."""
    if (bucket := _charged.get()) is not None:
        bucket.charge()

"""Rate limits by token bucket."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import anyio


class TokenBucket:
    """A token bucket.

    :param rate: tokens per second.
    :param debt: the most tokens that are charged beyond the available ones.
    :param clock: returns seconds; the event loop's clock by default.
    """

    __slots__ = ("_at", "_burst", "_clock", "_debt", "_left", "_rate")

    def __init__(
        self, *, rate: float, burst: int, debt: float = math.inf, clock: Callable[[], float] = anyio.current_time
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._debt = debt
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
        self._left = max(self._left - 1, -self._debt)

    def give_back(self, tokens: float) -> None:
        """Put tokens back, up to the capacity."""
        self._left = min(self._burst, self._left + tokens)

    async def wait(self) -> None:
        """Wait until a token is available, without taking it."""
        while self.left < 1:  # noqa: ASYNC110  # only time passes
            await anyio.sleep((1 - self._left) / self._rate)


class Charges:
    """The requests of one :func:`charged` block."""

    __slots__ = ("_bucket", "_earned", "_requests", "refunded")

    def __init__(self, bucket: TokenBucket) -> None:
        self._bucket = bucket
        self._requests = 0
        self._earned = 0.0
        self.refunded = 0.0
        """The tokens that were given back."""

    def charge(self) -> None:
        self._requests += 1
        self._bucket.charge()

    def earn(self, requests: float) -> None:
        self._earned += requests
        refund = min(self._earned, self._requests) - self.refunded
        self.refunded += refund
        self._bucket.give_back(refund)


_charged: ContextVar[Charges | None] = ContextVar("_charged", default=None)


@contextmanager
def charged(bucket: TokenBucket) -> Iterator[Charges]:
    """Charge a bucket for every request that this task and its child tasks send in the block, retries included."""
    charges = Charges(bucket)
    before = _charged.set(charges)
    try:
        yield charges
    finally:
        _charged.reset(before)


def charge() -> None:
    """Charge a request to the bucket of the enclosing :func:`charged`, if there is one."""
    if (charges := _charged.get()) is not None:
        charges.charge()


def refund(requests: float) -> None:
    """Give tokens back for so many requests of the enclosing :func:`charged`, at most those that it was charged for."""
    if (charges := _charged.get()) is not None:
        charges.earn(requests)

"""One back-off for all requests to a server that fails."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events.errors import AirbyteError, AirbyteStatusError, AirbyteUnreachable, RateLimited, ServerError

T = TypeVar("T")


def transient(error: AirbyteError) -> bool:
    """Return whether the same request may succeed later."""
    if isinstance(error, AirbyteStatusError) and error.status_code in {408, 425}:
        return True
    return isinstance(error, (AirbyteUnreachable, RateLimited, ServerError))


class Backoff:
    """A circuit breaker: closed while the server responds, open for a growing delay after it failed.

    Delays grow exponentially with full jitter (``random() * min(cap, base * 2**n)``); a ``Retry-After`` is obeyed up to
    ``longest``. After a delay one caller at a time tries. The others wait and share its failure, or all continue after
    its success. A hundred callers send one request per delay, and none waits longer than its own attempts would take.

    :param base: seconds, the longest delay after the first failure.
    :param cap: seconds, the longest delay without a ``Retry-After``.
    :param longest: seconds, the longest delay with one.
    :param random: from 0 to 1.
    """

    def __init__(
        self,
        *,
        base: float = 1.0,
        cap: float = 60.0,
        longest: float = 300.0,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._base = base
        self._cap = cap
        self._longest = longest
        self._random = random
        self._turn = anyio.Lock()
        self._failures = 0
        self._began = self._failed_at = 0.0
        self._until = 0.0
        self._last: AirbyteError | None = None
        # Counts failures: the outcome of a request that was sent before the last failure is outdated.
        self._closings = 0

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._failures

    @property
    def failing_for(self) -> float:
        """Seconds from the first of these failures to the last; 0 if there is none."""
        return self._failed_at - self._began if self._failures else 0.0

    @property
    def remaining(self) -> float:
        """Seconds until the next attempt, 0 without failures. Read it inside the event loop."""
        return max(0.0, self._until - anyio.current_time()) if self._failures else 0.0

    async def attempt(self, send: Callable[[], Awaitable[T]], *, isolated: int | None = None) -> T:
        """Send once, in turn.

        :param isolated: an HTTP status that says nothing about other requests.
        :raises AirbyteError: that of ``send``, or that of another caller who tried while this one waited.
        """
        if self._failures:
            closings = self._closings
            async with self._turn:
                if self._failures:
                    if self._closings != closings and self._last is not None:
                        raise again(self._last)
                    # The Retry-After of a request that is still in flight may extend the delay.
                    while self.remaining > 0:  # noqa: ASYNC110
                        await anyio.sleep(self.remaining)
                    return await self.observe(send, isolated=isolated)
        return await self.observe(send, isolated=isolated)

    async def attempt_alone(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send once after the delay, in parallel to other attempts: for slow requests, and those with own failures.

        :raises AirbyteError: that of ``send``.
        """
        await anyio.sleep(self.remaining)
        return await self.observe(send)

    async def observe(self, send: Callable[[], Awaitable[T]], *, isolated: int | None = None) -> T:
        """Send once, now, and count the outcome, unless it has the isolated status."""
        closings = self._closings
        try:
            result = await send()
        except AirbyteError as exc:
            if isolated is not None and isinstance(exc, AirbyteStatusError) and exc.status_code == isolated:
                raise
            if transient(exc):
                self._close(exc, news=closings == self._closings)
            elif isinstance(exc, AirbyteStatusError):
                self._open(news=closings == self._closings)
            raise
        self._open(news=closings == self._closings)
        return result

    def _open(self, *, news: bool) -> None:
        if news:
            self._failures = 0

    def _close(self, error: AirbyteError, *, news: bool) -> None:
        asked = error.retry_after if isinstance(error, AirbyteStatusError) else None
        if news:
            self._closings += 1
            delay = pause(self._failures, first=self._base, longest=self._cap, least=0, random=self._random)
            self._failed_at = anyio.current_time()
            self._began = self._began if self._failures else self._failed_at
            self._failures += 1
            self._last = error
            self._until = anyio.current_time() + delay
        if asked is not None and self._failures:
            self._until = max(self._until, anyio.current_time() + min(asked, self._longest))


def again(error: AirbyteError) -> AirbyteError:
    """Return a copy of an error for another caller: one exception raised in two tasks mixes up their tracebacks."""
    copy: AirbyteError
    if isinstance(error, AirbyteStatusError):
        known: dict[str, Any] = {"type": error.type, "retry_after": error.retry_after, "page": error.page}
        copy = type(error)(error.status_code, str(error), **known)
    else:
        copy = type(error)(str(error))
    copy.__cause__ = error
    return copy

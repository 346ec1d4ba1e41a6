"""An event that can be awaited again and again."""

from __future__ import annotations

import anyio


class Wakeup:
    """An event that resets itself once a wait for it has returned.

    :meth:`set` wakes every task that waits now; if none does, the next :meth:`wait` returns at once. So a task that
    checks something and then waits misses no change between the two.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake those who wait, or the next who does."""
        self._event.set()

    def is_set(self) -> bool:
        """Return whether the next :meth:`wait` returns at once."""
        return self._event.is_set()

    def clear(self) -> None:
        """Have the next :meth:`wait` wait, whatever was set before."""
        if self._event.is_set():
            self._event = anyio.Event()

    async def wait(self) -> None:
        """Wait until it is set, and reset it."""
        event = self._event
        await event.wait()
        if self._event is event:
            self._event = anyio.Event()

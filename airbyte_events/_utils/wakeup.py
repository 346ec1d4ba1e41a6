"""An event that can be awaited again and again."""

from __future__ import annotations

import anyio


class Wakeup:
    """An event that resets itself when a wait for it returns.

    :meth:`set` wakes all waiting tasks; without one, the next :meth:`wait` returns at once. So a task that checks
    something and then waits misses no change in between.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the waiting tasks, or the next one to wait."""
        self._event.set()

    def is_set(self) -> bool:
        """Return whether the next :meth:`wait` returns at once."""
        return self._event.is_set()

    def clear(self) -> None:
        if self._event.is_set():
            self._event = anyio.Event()

    async def wait(self) -> None:
        """Wait until it is set, and reset it."""
        event = self._event
        await event.wait()
        if self._event is event:
            self._event = anyio.Event()

"""Virtual time: waiting takes none, and each machine has a wall clock of its own."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import wraps
from typing import TypeVar

import anyio
import time_machine
from trio.abc import Instrument
from trio.lowlevel import Task
from trio.testing import MockClock, active_thread_count

T = TypeVar("T")

START = datetime(2026, 3, 1, 9, tzinfo=UTC).timestamp()
"""What the wall clocks show when virtual time begins, in seconds since the epoch."""

_machine: contextvars.ContextVar[Machine | None] = contextvars.ContextVar("machine", default=None)


class Machine:
    """A computer: what runs on it sees its wall clock.

    :param ahead: seconds that its wall clock is ahead of the true time; to be changed at any time.
    """

    def __init__(self, name: str, *, ahead: float = 0.0) -> None:
        self.name = name
        self.ahead = ahead
        self._context = contextvars.copy_context()
        self._context.run(_machine.set, self)

    def run(self, function: Callable[..., T], *args: object) -> T:
        """Call a plain function on this machine. Tasks that it starts run there, too."""
        clocks = _clocks.get()
        clocks.show(self)
        try:
            return self._context.run(function, *args)
        finally:
            clocks.show(_machine.get())


def here() -> Machine | None:
    """The machine that the current task runs on."""
    return _machine.get()


class _Clocks(Instrument):
    """Shows each task the wall clock of its machine, and holds virtual time while a thread works, as SQLite's does."""

    def __init__(self, virtual: MockClock, wall: time_machine.Traveller) -> None:
        self._virtual = virtual
        self._wall = wall
        self._shown = START

    def show(self, machine: Machine | None) -> None:
        moment = START + self._virtual.current_time() + (machine.ahead if machine else 0.0)
        if moment != self._shown:
            self._shown = moment
            self._wall.move_to(moment)

    def before_task_step(self, task: Task) -> None:
        self.show(task.context.get(_machine))

    def after_task_step(self, task: Task) -> None:
        threshold = math.inf if active_thread_count() else 0.0
        if self._virtual.autojump_threshold != threshold:
            self._virtual.autojump_threshold = threshold


_clocks: contextvars.ContextVar[_Clocks] = contextvars.ContextVar("clocks")


def play(main: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run it in virtual time, which goes on by itself, to the next deadline, whenever everything waits."""
    clock = MockClock(autojump_threshold=0)
    with time_machine.travel(START, tick=False) as wall:
        clocks = _Clocks(clock, wall)
        token = _clocks.set(clocks)
        try:
            return anyio.run(main, *args, backend="trio", backend_options={"clock": clock, "instruments": [clocks]})
        finally:
            _clocks.reset(token)


def in_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        play(main)

    return run

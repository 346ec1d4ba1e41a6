"""Run commands, and exit with their codes."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial, wraps
from inspect import iscoroutinefunction
from typing import Any

import anyio
import typer

from airbyte_events._utils import stdout

INTERRUPTED = 130
"""The exit code after Ctrl-C, as after death by SIGINT."""

CUT_OFF = 141
"""The exit code after the reader of the output has closed it, as after death by SIGPIPE."""

EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 after Ctrl-C."


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of the command line.

    :param epilog: lines below its help; those that begin with a space are examples.
    """

    name: str
    help: str
    epilog: tuple[str, ...]
    run: Callable[..., None]


def command(name: str, *epilog: str) -> Callable[[Callable[..., Any]], Command]:
    """Declare a function as a command. Its docstring is the help. If it is async, it returns the exit code."""

    def declare(work: Callable[..., Any]) -> Command:
        run = _run(work) if iscoroutinefunction(work) else work
        return Command(name=name, help=" ".join((work.__doc__ or "").split()), epilog=epilog, run=run)

    return declare


def _run(work: Callable[..., Awaitable[int]]) -> Callable[..., None]:
    """Return the function that runs the work, and exits with its code; after 0 a group's subcommand can follow."""

    @wraps(work)
    def run(*args: object, **options: object) -> None:
        try:
            code = anyio.run(partial(work, *args, **options))
            sys.stdout.flush()
        except KeyboardInterrupt:
            code = INTERRUPTED
        except BrokenPipeError:
            stdout.abandon()
            code = CUT_OFF
        if code:
            raise typer.Exit(code)

    return run

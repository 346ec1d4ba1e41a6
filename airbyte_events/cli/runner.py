"""Run commands, and exit with their codes."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import anyio
import typer

from airbyte_events._utils import stdout

INTERRUPTED = 130
"""The exit code after Ctrl-C, as after death by SIGINT."""

CUT_OFF = 141
"""The exit code after the reader of the output has closed it, as after death by SIGPIPE."""

EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 after Ctrl-C."


def run(work: Callable[[], Awaitable[int]]) -> None:
    """Run a command's work, and exit.

    :param work: returns the exit code.
    :raises typer.Exit: always, unless the work fails otherwise.
    """
    try:
        code = anyio.run(work)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        stdout.abandon()
        code = CUT_OFF
    raise typer.Exit(code)

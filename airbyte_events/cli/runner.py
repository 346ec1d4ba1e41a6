"""Run commands, and exit with their codes."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial, wraps

import anyio
import typer

from airbyte_events._utils import stdout

INTERRUPTED = 130
"""The exit code after Ctrl-C, as after death by SIGINT."""

CUT_OFF = 141
"""The exit code after the reader of the output has closed it, as after death by SIGPIPE."""

EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 after Ctrl-C."


def command(work: Callable[..., Awaitable[int]]) -> Callable[..., None]:
    """Return the command that runs the work, and exits with the code that the work returns.

    After 0 it returns, so that the subcommand of a group can follow.
    """

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

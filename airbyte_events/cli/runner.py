"""Run commands, and exit with their codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
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

TIMED_OUT = 3
"""The exit code after a time-out, while what was waited for continues."""

_MEANINGS = {
    0: "done",
    1: "failed",
    2: "wrong usage or settings",
    TIMED_OUT: "timed out",
    INTERRUPTED: "after Ctrl-C",
    CUT_OFF: "the reader of the output has closed it",
}
"""The meanings of the exit codes, where a command does not say more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of the command line.

    :param epilog: lines below its help; those that begin with a space are examples.
    :param codes: its exit codes, with their meanings.
    """

    name: str
    help: str
    epilog: tuple[str, ...]
    codes: Mapping[int, str]
    run: Callable[..., None]


def command(name: str, *epilog: str, codes: Mapping[int, str] | None = None) -> Callable[[Callable[..., Any]], Command]:
    """Declare a function as a command. It returns the exit code, and its docstring is the help.

    The help lists the exit codes: those that are declared here, and those that every command has. A function that is
    not async runs a server, which continues when the reader of its output closes it unless it declares 141.

    :param codes: the meanings of the codes that it returns; by default 0 and 1.
    """

    def declare(work: Callable[..., Any]) -> Command:
        everywhere = [2, INTERRUPTED, *([CUT_OFF] if iscoroutinefunction(work) else [])]
        own = codes or {code: _MEANINGS[code] for code in (0, 1)}
        meanings = dict(sorted(({code: _MEANINGS[code] for code in everywhere} | dict(own)).items()))
        return Command(
            name=name,
            help=" ".join((work.__doc__ or "").split()),
            epilog=(*epilog, _listed(meanings)),
            codes=meanings,
            run=_run(work, meanings),
        )

    return declare


def exit_codes(commands: Iterable[Command]) -> str:
    """Return the line of help that lists the exit codes of all these commands."""
    return _listed({code: _MEANINGS[code] for code in sorted({code for each in commands for code in each.codes})})


def _listed(meanings: Mapping[int, str]) -> str:
    return f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in meanings.items())}."


def _run(work: Callable[..., Any], meanings: Mapping[int, str]) -> Callable[..., None]:
    """Return the function that runs the work, and exits with its code; after 0 a group's subcommand can follow."""

    @wraps(work)
    def run(*args: object, **options: object) -> None:
        try:
            call = partial(work, *args, **options)
            code = anyio.run(call) if iscoroutinefunction(work) else call()
            sys.stdout.flush()
        except typer.Exit as exc:
            code = exc.exit_code
        except KeyboardInterrupt:
            code = INTERRUPTED
        except BrokenPipeError:
            if CUT_OFF not in meanings:
                raise
            stdout.abandon()
            code = CUT_OFF
        if code not in meanings:
            raise ValueError(f"the exit code {code} is not in the help of {work.__name__}")
        if code:
            raise typer.Exit(code)

    return run

"""Questions to a person at a terminal, on standard error."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from getpass import getpass


def can_ask() -> bool:
    """Return whether a question can be asked: standard input and standard error are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> str:
    """Return the answer, which may be empty.

    :raises EOFError: if there is none any more.
    """
    with _interruptible():
        sys.stderr.write(question)
        sys.stderr.flush()
        line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


def ask_secret(question: str) -> str:
    """Return the answer, which is not shown while it is typed. Raises as :func:`ask` does."""
    with _interruptible():
        return getpass(question, stream=sys.stderr).strip()


def confirmed(question: str) -> bool:
    """Return whether the answer is yes."""
    try:
        return ask(question).lower() in {"y", "yes"}
    except EOFError:
        return False


@contextmanager
def _interruptible() -> Iterator[None]:
    # An event loop would handle Ctrl-C only after the input.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)

"""Standard output, whose reader may leave before what is written to it has ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def say(*lines: str) -> None:
    """Write lines, to nobody once they can't be written: whoever stopped reading ends nothing by that."""
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except OSError:
        abandon()


def abandon() -> None:
    """Let go of standard output: what is left in its buffer would fail once more when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def ensure() -> None:
    """Have standard output and error lead somewhere where the shell has closed them (``>&-``)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 -- until the process ends

"""Standard output whose reader may close it early."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def say(*lines: str) -> None:
    """Write lines. Once that fails, as the reader has closed its end, discard them."""
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except OSError:
        abandon()


def abandon() -> None:
    """Redirect standard output to the null device, so that flushing its buffer at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def ensure() -> None:
    """Open the null device as standard output and error if the shell has closed them (``>&-``)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 -- until the process ends

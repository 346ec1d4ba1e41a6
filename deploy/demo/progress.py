"""How far the demo is: a spinner on a terminal, a line for each thing that is done everywhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import Progress as Spinner
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


class Progress:
    """Called with a line when something is done. Seconds count from here."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def __call__(self, line: str) -> None:
        elapsed = time.monotonic() - self._started
        self._console.print(f"[{elapsed:6.1f} s] {line}", markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Say that this is going on until the block ends."""
        if not self._console.is_terminal:
            self(f"{what} …")
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Spinner(*columns, console=self._console, transient=True) as spinner:
            spinner.add_task(what, total=None)
            yield

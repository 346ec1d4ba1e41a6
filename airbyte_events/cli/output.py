"""What commands show: tables and colour on a terminal, plain lines in a pipe, JSON for programs.

Everything that others wrote (names, reasons, addresses) loses what a terminal would obey.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from airbyte_events._utils import stdout
from airbyte_events._utils.printable import dumps, shown
from airbyte_events.errors import AirbyteEventsError

_COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "incomplete": "yellow",
    "running": "cyan",
    "pending": "blue",
    "queued": "blue",
    "confirmed": "green",
    "unconfirmed": "yellow",
    "unknown_job": "yellow",
    "rejected": "red",
    "ok": "green",
    "warning": "yellow",
    "failure": "red",
}


_FOLDED, _BETWEEN = 24, 3
"""How wide a column is that long words are folded in, where there is no more room; and what stands between two."""


class Output:
    """Standard output, for people and programs, and standard error for what is said beside.

    :param json: whether objects are shown, not lines.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._console = _console(sys.stdout)
        self.aside = _console(sys.stderr)
        """Standard error."""

    @property
    def terminal(self) -> bool:
        return self._console.is_terminal

    def object(self, value: Any) -> None:
        """One line of JSON."""
        self._write(dumps(value, ascii=True))

    def line(self, *parts: str | Text) -> None:
        """A line for people, its parts two spaces apart."""
        if self.terminal:
            self._console.print(Text("  ").join(map(_text, parts)))
        else:
            self._write("  ".join(_text(part).plain for part in parts))

    def table(
        self, headings: Sequence[str], rows: Sequence[Sequence[str | Text]], *, spare: Sequence[str] = ()
    ) -> None:
        """A table, or in a pipe lines with columns.

        :param spare: the columns that a narrow terminal does without, the first of them first.
        """
        cells = [[_text(cell) for cell in row] for row in rows]
        if self.terminal:
            self._draw({heading: [row[column] for row in cells] for column, heading in enumerate(headings)}, spare)
            return
        lines = [[heading.upper() for heading in headings], *([cell.plain for cell in row] for row in cells)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
        for line in lines:
            self._write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())

    def _draw(self, columns: dict[str, list[Text]], spare: Sequence[str]) -> None:
        left, folded = list(spare), _FOLDED
        while (
            sum(least := _least(columns, folded)) + _BETWEEN * (len(columns) - 1) > self._console.width and folded > 1
        ):
            if left:
                del columns[left.pop(0)]
            else:
                folded -= 1
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for heading, width in zip(columns, least, strict=True):
            # What is cut off can't be copied.
            table.add_column(heading, min_width=width, overflow="fold")
        for row in zip(*columns.values(), strict=True):
            table.add_row(*row)
        self._console.print(table, soft_wrap=False)

    def facts(self, facts: Sequence[tuple[str, str | Text | None]]) -> None:
        """Names and what they are; those that are None are left out."""
        told = [(name, _text(value)) for name, value in facts if value is not None]
        width = max(len(name) for name, _ in told)
        for name, value in told:
            self.line(Text(name.ljust(width), style="bold"), value)

    def say(self, text: str) -> None:
        """Say something beside the output, on standard error."""
        self.aside.print(Text(shown(text)), style="dim")

    def reader_gone(self) -> bool:
        """Whether nobody reads the output any more, which writing alone would tell too late."""
        if self.terminal or not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(happened & (select.POLLERR | select.POLLNVAL) for _, happened in poll.poll(0))

    def _write(self, line: str) -> None:
        try:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as exc:
            stdout.abandon()
            raise AirbyteEventsError(f"the output can't be written: {exc.strerror}") from exc


def status(name: str) -> Text:
    """A job's status, a notification's outcome or a finding's level, in its colour."""
    return Text(shown(name), style=_COLOURS.get(name, ""))


def moment(text: str | None) -> str:
    """A time out of the listener's JSON, to the second; it stays UTC, so that all who read it speak of the same."""
    return "" if text is None else f"{text[:19]}Z"


def moment_of(time: datetime | None) -> str:
    """The same of a value in UTC."""
    return "" if time is None else f"{time:%Y-%m-%dT%H:%M:%S}Z"


def duration(seconds: float | None) -> str:
    """As people say it: ``850 ms``, ``12.3 s``, ``4 min 10 s``, ``2 h 5 min``."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def amount(number: int | None) -> str:
    """A number with its thousands apart."""
    return "" if number is None else f"{number:,}"


def _console(file: TextIO) -> Console:
    # FORCE_COLOR, which many a build sets, is no reason to fit tables into 80 columns of a pipe.
    return Console(file=file, force_terminal=file.isatty(), highlight=False, soft_wrap=True)


def _least(columns: dict[str, list[Text]], folded: int) -> list[int]:
    """How wide each column has to be, if what is wider than so much is folded."""
    return [min(folded, max(cell.cell_len for cell in (Text(heading), *cells))) for heading, cells in columns.items()]


def _text(part: str | Text) -> Text:
    return part if isinstance(part, Text) else Text(shown(part))

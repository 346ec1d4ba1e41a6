"""The output of commands: tables and colour on a terminal, plain lines in a pipe, JSON for programs.

Escape sequences in names, reasons and addresses are neutralised.
"""

from __future__ import annotations

import select
import sys
import textwrap
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

_NAMES = {
    "green": ("succeeded", "confirmed", "ok"),
    "yellow": ("cancelled", "incomplete", "unconfirmed", "unknown_job", "warning"),
    "red": ("failed", "rejected", "failure"),
    "cyan": ("running",),
    "blue": ("pending", "queued"),
}
_COLOURS = {name: colour for colour, names in _NAMES.items() for name in names}

_FOLDED, _BETWEEN = 24, 3
"""The width of columns with folded words on a narrow terminal, and of the space between two columns."""


class Output:
    """Standard output for results, standard error for notes.

    :param json: write objects, not lines.
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
        self._write(dumps(value, ascii=True))

    def line(self, *parts: str | Text) -> None:
        """Write a line for people, its parts two spaces apart."""
        if self.terminal:
            self._console.print(Text("  ").join(map(_text, parts)))
        else:
            self._write("  ".join(_text(part).plain for part in parts))

    def prose(self, lead: Text, text: str, style: str = "") -> None:
        """Write a sentence for people, two spaces after its lead; a terminal's lines break between words, below it."""
        for line in wrapped(self._console, text, lead.cell_len + 2):
            self.line(lead, Text(line, style=style))
            lead = Text(" " * lead.cell_len)

    def table(
        self, headings: Sequence[str], rows: Sequence[Sequence[str | Text]], *, optional: Sequence[str] = ()
    ) -> None:
        """Write a table; in a pipe, aligned lines.

        :param optional: the columns to leave out on a narrow terminal, in this order.
        """
        cells = [[_text(cell) for cell in row] for row in rows]
        if self.terminal:
            self._draw({heading: [row[column] for row in cells] for column, heading in enumerate(headings)}, optional)
            return
        lines = [[heading.upper() for heading in headings], *([cell.plain for cell in row] for row in cells)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
        for line in lines:
            self._write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())

    def _draw(self, columns: dict[str, list[Text]], optional: Sequence[str]) -> None:
        left, folded = list(optional), _FOLDED
        while (
            sum(least := _least(columns, folded)) + _BETWEEN * (len(columns) - 1) > self._console.width and folded > 1
        ):
            if left:
                del columns[left.pop(0)]
            else:
                folded -= 1
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for heading, width in zip(columns, least, strict=True):
            # Text that is cut off can't be copied.
            table.add_column(heading, min_width=width, overflow="fold")
        for row in zip(*columns.values(), strict=True):
            table.add_row(*row)
        self._console.print(table, soft_wrap=False)

    def facts(self, facts: Sequence[tuple[str, str | Text | None]]) -> None:
        """Write names and values; an empty value is left out."""
        known = [(name, _text(value)) for name, value in facts if value]
        width = max(len(name) for name, _ in known)
        for name, value in known:
            self.line(Text(name.ljust(width), style="bold"), value)

    def note(self, text: str) -> None:
        """Write a note to standard error."""
        for line in wrapped(self.aside, text):
            self.aside.print(Text(line), style="dim")

    def reader_gone(self) -> bool:
        """Return whether the reader has closed the output, without writing to it."""
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
    """Return a job's status, a notification's outcome or a finding's level in its colour."""
    return Text(shown(name), style=_COLOURS.get(name, ""))


def moment(time: str | datetime | None) -> str:
    """Return a time in UTC, or one of the listener's JSON, to the second."""
    return "" if time is None else f"{str(time)[:19].replace(' ', 'T')}Z"


def counted(number: int, noun: str) -> str:
    """Return ``1 failure``, ``2 failures``."""
    return f"{amount(number)} {noun}{'' if number == 1 else 's'}"


def amount(number: int | None) -> str:
    """Return a number with thousands separators."""
    return "" if number is None else f"{number:,}"


def complain(text: str) -> None:
    """Write an error to standard error."""
    console = _console(sys.stderr)
    for line in wrapped(console, f"airbyte-events: {text}"):
        console.print(Text(line))


def wrapped(console: Console, text: str, taken: int = 0) -> Sequence[str]:
    """Return a sentence in lines that break between words, on a terminal. A longer word stays whole, to be copied.

    :param taken: columns that other text has in each line.
    """
    if not console.is_terminal:
        return [shown(text)]
    width = max(console.width - taken, _FOLDED)
    return textwrap.wrap(shown(text), width, break_long_words=False, break_on_hyphens=False) or [""]


def _console(file: TextIO) -> Console:
    # Many builds set FORCE_COLOR, which would fit tables into 80 columns of a pipe.
    return Console(file=file, force_terminal=file.isatty(), highlight=False, soft_wrap=True)


def _least(columns: dict[str, list[Text]], folded: int) -> list[int]:
    """Return the width of each column, if wider ones are folded."""
    return [min(folded, max(cell.cell_len for cell in (Text(heading), *cells))) for heading, cells in columns.items()]


def _text(part: str | Text) -> Text:
    return part if isinstance(part, Text) else Text(shown(part))

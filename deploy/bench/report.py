"""The figures of a run: for a terminal, a pipe, and the documentation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from part import Aim, Row, kilobytes, seconds
from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from part import Part

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
HEADLINE = ("official provider", "airbyte-events")
"""The columns of the table that the README has too."""


class Report:
    """The report of one run.

    :param document: its results, machine, date and versions: see :func:`bench.run`.
    :param parts: the measured ones, by name.
    """

    def __init__(self, document: Mapping[str, Any], parts: Mapping[str, Part]) -> None:
        self._document, self._parts = document, parts

    @property
    def aims(self) -> list[Aim]:
        """All aims, those of the first part first."""
        return [aim for name, part in self._parts.items() for aim in part.aims(self._document["results"][name])]

    def terminal(self) -> Group:
        """For a terminal."""
        shown: list[Any] = []
        for title, columns, rows in self._tables():
            table = Table(box=SIMPLE, title=title, title_justify="left")
            table.add_column("")
            for column in columns:
                table.add_column(column, justify="right")
            for row in rows:
                table.add_row(row.what, *_cells(row, columns))
            shown.append(table)
        table = Table(box=SIMPLE, show_header=False)
        for aim in self.aims:
            table.add_row("[green]met[/]" if aim.met else "[red]missed[/]", aim.what, aim.value)
        return Group(*shown, self._caption(), table)

    def pipe(self) -> str:
        """As plain text in columns."""
        lines = []
        for title, columns, rows in self._tables():
            lines += [*_aligned([(title, *columns), *((row.what, *_cells(row, columns)) for row in rows)]), ""]
        lines += [self._caption(), ""]
        lines += _aligned([("met" if aim.met else "missed", aim.what, aim.value) for aim in self.aims])
        return "\n".join(lines)

    def page(self, text: str) -> str:
        """Return the documentation's page with the figures between its markers.

        :raises ValueError: if it has no markers.
        """
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"there is no {BEGIN} … {END}")
        return f"{before}{BEGIN}\n{self._markdown()}\n{END}{after}"

    def readme(self, text: str) -> str:
        """Return the README with the figures of this run: the rows of its table that this run has.

        :raises ValueError: if it lacks one of them.
        """
        for row in self._headline():
            line = _line(row, HEADLINE)
            text, count = re.subn(rf"(?m)^\| {re.escape(row.what)} \|.*$", line, text)
            if count != 1:
                raise ValueError(f"the README has no row {row.what!r}")
        return text

    def _headline(self) -> Iterator[Row]:
        seen = self._document["results"]
        official, ours = HEADLINE
        if (mapped := seen.get("mapped")) and (latency := seen.get("latency")):
            ended = {side: mapped["one_by_one"][f"{side}_worker"]["p50"] for side in ("push", "oracle")}
            triggered = {side: latency[side]["p50"] for side in ("official", "oracle")}
            known = None not in (*ended.values(), *triggered.values())
            # The rest of the way is Airflow's, the same for every trigger.
            theirs = triggered["official"] + ended["oracle"] - triggered["oracle"] if known else None
            yield Row(
                what="from the job's completion in Airbyte to the task's success (median)",
                cells={official: f"≈ {seconds(theirs)}", ours: seconds(ended["push"])},
            )
        if delivery := seen.get("delivery"):
            yield Row(
                what=f"published after the webhook arrived (median, {delivery['rate']} webhooks per second)",
                cells={official: "no webhooks", ours: seconds(delivery["p50"])},
            )
        if (waiting := seen.get("waiting")) and waiting["bytes_per_trigger"]:
            count = waiting["triggers"]
            sides = {official: "official", ours: "push"}
            rate, memory = waiting["requests_per_minute"], waiting["bytes_per_trigger"]
            yield Row(
                what=f"requests to Airbyte per minute while {count:,} tasks wait",
                cells={column: f"{rate[side][str(count)]:,.0f}" for column, side in sides.items()},
            )
            yield Row(
                what="triggerer memory per waiting task",
                cells={column: kilobytes(memory[side]["uss"]) for column, side in sides.items()},
            )

    def _tables(self) -> Iterator[tuple[str, Sequence[str], list[Row]]]:
        if headline := list(self._headline()):
            yield "In short", HEADLINE, headline
        for name, part in self._parts.items():
            yield part.TITLE, part.COLUMNS, list(part.rows(self._document["results"][name]))

    def _markdown(self) -> str:
        lines = [self._caption(), ""]
        notes = {part.TITLE: part.NOTE for part in self._parts.values()}
        for title, columns, rows in self._tables():
            lines += [f"## {title}", "", f"| {' | '.join(('', *columns))} |", "|---|" + "---:|" * len(columns)]
            lines += [_line(row, columns) for row in rows] + [""]
            lines += [notes[title], ""] if title in notes else []
        lines += ["## Aims", "", "|  | aim | measured |", "|---|---|---:|"]
        lines += [f"| {'met' if aim.met else 'missed'} | {aim.what} | {aim.value} |" for aim in self.aims]
        return "\n".join(lines)

    def _caption(self) -> str:
        document = self._document
        machine = document["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
        return (
            f"Measured by `{document['command']}` on {document['date']}, commit {document['commit']}, on "
            f"{machine['cpus']} CPUs ({machine['cpu']}) with {machine['memory_gib']} GiB of memory, with {versions}. "
            "Simulated Airbyte, listener, Airflow and load share that machine."
        )


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    unknown = row.cells.keys() - set(columns)
    assert not unknown, f"{row.what!r} has cells of no column: {unknown}"
    return [row.cells.get(column, "") for column in columns]


def _line(row: Row, columns: Sequence[str]) -> str:
    return f"| {' | '.join((row.what, *_cells(row, columns)))} |"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))] if table else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]

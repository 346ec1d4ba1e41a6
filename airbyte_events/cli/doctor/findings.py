"""The findings of doctor's checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    """It works but could be better, or could not be checked."""
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the report.

    :param remedy: what to do; empty if nothing.
    """

    level: Level
    part: str
    text: str
    remedy: str = ""


class Row(NamedTuple):
    """A kind of error, and the finding that it is."""

    kind: type[Exception] | tuple[type[Exception], ...]
    text: str
    remedy: str
    level: Level = Level.FAILURE


@dataclass(frozen=True, slots=True)
class Report:
    """The findings about one part; :meth:`about` returns the same report for another part."""

    show: Callable[[Finding], object]
    findings: list[Finding] = field(default_factory=list)
    part: str = ""

    def about(self, part: str) -> Report:
        return replace(self, part=part)

    def ok(self, text: str) -> None:
        self.add(Finding(Level.OK, self.part, text))

    def warning(self, text: str, remedy: str = "") -> None:
        self.add(Finding(Level.WARNING, self.part, text, remedy))

    def failure(self, text: str, remedy: str = "") -> None:
        self.add(Finding(Level.FAILURE, self.part, text, remedy))

    def error(self, error: Exception, *rows: Row) -> None:
        """Add the finding of the first row that has the error's type; the error's message follows the row's text."""
        row = next(row for row in rows if isinstance(error, row.kind))
        self.add(Finding(row.level, self.part, f"{row.text}: {error}", row.remedy))

    def add(self, finding: Finding) -> None:
        self.findings.append(finding)
        self.show(finding)

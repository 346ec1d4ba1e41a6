"""The findings of doctor's checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum


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


Row = tuple[type[Exception] | tuple[type[Exception], ...], Level, str, str]
"""A kind of error, and the finding that it is: level, text and remedy."""


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
        level, text, remedy = next(row[1:] for row in rows if isinstance(error, row[0]))
        self.add(Finding(level, self.part, f"{text}: {error}" if text else str(error), remedy))

    def add(self, finding: Finding) -> None:
        self.findings.append(finding)
        self.show(finding)

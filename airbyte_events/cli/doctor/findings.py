"""The findings of doctor's checks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    """It works but could be better, or could not be checked."""
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A line of the report.

    :param part: what was checked.
    :param text: the result.
    :param remedy: what to do; empty if nothing.
    """

    level: Level
    part: str
    text: str
    remedy: str = ""


def ok(part: str, text: str) -> Finding:
    return Finding(level=Level.OK, part=part, text=text)


def warning(part: str, text: str, remedy: str = "") -> Finding:
    return Finding(level=Level.WARNING, part=part, text=text, remedy=remedy)


def failure(part: str, text: str, remedy: str = "") -> Finding:
    return Finding(level=Level.FAILURE, part=part, text=text, remedy=remedy)

"""What an examination finds: line by line, and what to do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How grave it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and could be better, or could not be looked at."""
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line.

    :param part: what was looked at.
    :param text: what was found.
    :param remedy: what to do; empty where there is nothing to do.
    """

    level: Level
    part: str
    text: str
    remedy: str = ""


Examination = Callable[[], AsyncIterator[Finding]]


def ok(part: str, text: str) -> Finding:
    return Finding(level=Level.OK, part=part, text=text)


def warning(part: str, text: str, remedy: str = "") -> Finding:
    return Finding(level=Level.WARNING, part=part, text=text, remedy=remedy)


def failure(part: str, text: str, remedy: str = "") -> Finding:
    return Finding(level=Level.FAILURE, part=part, text=text, remedy=remedy)

"""What a part of the benchmark is, and the figures that it reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from processes import Processes


class Part(Protocol):
    """A part of the benchmark: a module with these names, and its line in :data:`bench.PARTS`.

    It measures at two sizes. What ``measure`` returns has to be JSON: ``rows`` and ``aims`` also get the results of an
    earlier run.
    """

    TITLE: str
    """What it measures: the heading of its table."""
    NOTE: str
    """How it measures, in a sentence or two below the table."""
    COLUMNS: tuple[str, ...]
    FULL: Any
    """The scale of ``make bench``."""
    SMALL: Any
    """The scale of ``make bench ARGS=--ci``: shows that it works, in seconds."""

    def duration(self, scale: Any) -> float:
        """Return about how many seconds it takes."""

    def measure(
        self, processes: Processes, home: Path, scale: Any, progress: Callable[[str], None]
    ) -> Mapping[str, Any]:
        """Measure.

        :param processes: starts processes, and stops those that are left.
        :param home: a folder of its own, to be created.
        :param progress: called with a line now and then.
        """

    def rows(self, seen: Mapping[str, Any]) -> Iterator[Row]:
        """Return the rows of its table."""

    def aims(self, seen: Mapping[str, Any]) -> Iterator[Aim]:
        """Return what this project wants to reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table.

    :param cells: by column.
    """

    what: str
    cells: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """An aim, and whether it was met."""

    what: str
    value: str
    met: bool


def number(value: float | None) -> str:
    return "not seen" if value is None else f"{value:,.1f}"


def seconds(value: float | None) -> str:
    """0.0123 → ``12.3 ms``; None: it had not come when the measurement ended."""
    if value is None:
        return "not in time"
    if value >= 0.9995:
        return f"{value:.1f} s"
    return f"{value * 1000:.0f} ms" if value >= 0.0995 else f"{value * 1000:.1f} ms"


def micros(value: float) -> str:
    return f"{value:,.0f} µs"


def kilobytes(amount: float) -> str:
    return f"{amount / 1000:,.1f} kB" if amount < 99_500 else f"{amount / 1000:,.0f} kB"


def within(what: str, value: float | None, limit: float) -> Aim:
    """Return the aim that something takes at most so many seconds."""
    return Aim(what=f"{what} ≤ {seconds(limit)}", value=seconds(value), met=value is not None and value <= limit)

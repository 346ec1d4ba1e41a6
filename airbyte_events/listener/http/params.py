"""What a request asks for: filters, cursors and limits from its query string."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from starlette.datastructures import QueryParams

from airbyte_events.events import EventFilter, JobStatus

T = TypeVar("T")


class QueryError(ValueError):
    """A parameter is wrong. The message names it, its fault and what it takes."""


_LISTS = frozenset({"instance", "connection_id", "job_id", "status"})

FILTERS = _LISTS | {"terminal"}

_NUMBER = re.compile(r"[0-9]{1,17}(?:\.[0-9]{1,17})?")


PAGE_BYTES = 2**20
"""What a page has at most, about, whatever its limit."""

_FIRST_STEP, _STEP = 25, 200


async def page(
    read: Callable[[int, int | None], Awaitable[Sequence[T]]],
    limit: int,
    before: int | None,
    place: Callable[[T], int],
    weight: Callable[[T], int],
) -> tuple[list[T], int | None]:
    """A page of a list, newest first, that is read in steps, so that no more than is wanted is ever in memory.

    :param read: so many of those before a place.
    :param place: of an item.
    :param weight: an item's bytes.
    :return: the items, and before which place the next page begins, None at the end.
    """
    found: list[T] = []
    size = 0
    while len(found) < limit and size < PAGE_BYTES:
        step = min(_STEP, (PAGE_BYTES - size) * len(found) // size + 1) if size else _FIRST_STEP
        step = min(step, limit - len(found))
        some = await read(step, before)
        found += some
        size += sum(map(weight, some))
        if len(some) < step:
            return found, None
        before = place(some[-1])
    return found, before


def refuse_others(params: QueryParams, known: frozenset[str]) -> None:
    """A misspelt filter must not pass for none, nor one of two values for both.

    :raises QueryError: if there is a parameter that is not known, or twice what has one value only.
    """
    if others := sorted(params.keys() - known):
        raise QueryError(f"{others[0][:40]}: no such parameter here; there are {', '.join(sorted(known))}")
    if twice := [name for name in sorted(params.keys() - _LISTS) if len(params.getlist(name)) > 1]:
        raise QueryError(f"{twice[0]}: give it once")


def event_filter(params: QueryParams) -> EventFilter:
    """The filters of :data:`FILTERS`.

    Each but ``terminal`` can be given several times, or several values with commas between.

    :raises QueryError: if one is wrong.
    """
    terminal = params.get("terminal")
    if terminal not in (None, "true", "false"):
        raise QueryError("terminal: give true or false")
    return EventFilter(
        instances=frozenset(_values(params, "instance")),
        connection_ids=frozenset(_values(params, "connection_id")),
        job_ids=frozenset(_parsed("job_id", whole_id, _values(params, "job_id"), "whole numbers above 0")),
        statuses=frozenset(
            _parsed("status", JobStatus, _values(params, "status"), "of " + ", ".join(each.value for each in JobStatus))
        ),
        terminal=None if terminal is None else terminal == "true",
    )


def whole_id(text: str) -> int:
    """The id of a job or a notification: a whole number above 0 that a database can hold.

    :raises ValueError: if the text is none.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,18}", text) or int(text) >= 2**63:
        raise ValueError("not an id")
    return int(text)


def number(params: QueryParams, name: str, default: float, *, least: float, most: float) -> float:
    """A number within bounds, in plain decimal notation.

    :raises QueryError: if it is none.
    """
    text = params.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or not least <= float(text) <= most:
        raise QueryError(f"{name}: give a number from {least:g} to {most:g}")
    return float(text)


def whole_number(params: QueryParams, name: str, default: int, *, least: int, most: int) -> int:
    """A whole number within bounds.

    :raises QueryError: if it is none.
    """
    text = params.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or "." in text or not least <= int(text) <= most:
        raise QueryError(f"{name}: give a whole number from {least} to {most}")
    return int(text)


def _values(params: QueryParams, name: str) -> Iterable[str]:
    """:raises QueryError: for one that is empty, which would let all pass, or that no database takes."""
    values = [value for text in params.getlist(name) for value in text.split(",")]
    if "" in values or any("\0" in value for value in values):
        raise QueryError(f"{name}: give one or more values, with commas between")
    return values


def _parsed(name: str, parse: Callable[[str], T], values: Iterable[str], wanted: str) -> list[T]:
    try:
        return [parse(value) for value in values]
    except ValueError:
        raise QueryError(f"{name}: give {wanted}") from None

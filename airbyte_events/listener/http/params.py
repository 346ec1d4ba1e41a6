"""Read filters, limits and pages from a request's query string, and its body."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request

from airbyte_events._utils import json_values
from airbyte_events._utils.times import parse_time
from airbyte_events.events import EventFilter, Identity, JobRef, JobStatus
from airbyte_events.store.records import Delivery, StoredNotification

N = TypeVar("N", int, float)
Stored = TypeVar("Stored", StoredNotification, Delivery)
T = TypeVar("T")


class QueryError(ValueError):
    """A parameter or the body is wrong. The message names it, the fault, and what to send."""


_LISTS = frozenset({"instance", "connection_id", "job_id", "status"})

FILTERS = _LISTS | {"terminal"}

_NUMBER = re.compile(r"[0-9]{1,17}(?:\.[0-9]{1,17})?")


MAX_LIST = 1_000
"""The most jobs in a body."""

MAX_BODY = 256 * 1024

PAGE_BYTES = 2**20
"""The approximate size at which a page ends, whatever its limit."""

_FIRST_STEP, _STEP = 25, 200


async def page(
    read: Callable[[int, int | None], Awaitable[Sequence[T]]],
    limit: int,
    before: int | None,
    position: Callable[[T], int],
    size: Callable[[T], int],
) -> tuple[list[T], int | None]:
    """Read a page of a list, newest first, in steps that bound the memory.

    :param read: reads up to so many items before a position.
    :param size: of an item, in bytes.
    :return: the items, and the position before which the next page starts, None at the end.
    """
    found: list[T] = []
    total = 0
    while len(found) < limit and total < PAGE_BYTES:
        step = min(_STEP, (PAGE_BYTES - total) * len(found) // total + 1) if total else _FIRST_STEP
        step = min(step, limit - len(found))
        items = await read(step, before)
        found += items
        total += sum(map(size, items))
        if len(items) < step:
            return found, None
        before = position(items[-1])
    return found, before


async def read_body(request: Request, most: int) -> bytes | None:
    """Return the body; None if it is larger than ``most`` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            return None
    return bytes(body)


async def job_list(request: Request, name: str) -> list[Any]:
    """Return the list of this name in the body's JSON object: objects with an instance and a job id, see
    :func:`job_ref`.

    :raises QueryError: if there is none, or it or the body is too long.
    """
    body = await read_body(request, MAX_BODY)
    if body is None:
        raise QueryError(f"the body is larger than {MAX_BODY} bytes")
    try:
        jobs = json_values.parse_object(body).get(name)
    except ValueError as exc:
        raise QueryError(f"the body {exc}") from None
    if not isinstance(jobs, list):
        raise QueryError(f'{name}: send {{"{name}": [{{"instance": "default", "job_id": 17}}]}}')
    if len(jobs) > MAX_LIST:
        raise QueryError(f"{name}: send at most {MAX_LIST} per call, not {len(jobs)}")
    return jobs


def job_ref(job: object, name: str, instances: Collection[str]) -> JobRef:
    """Return which job an object of a list in a body means.

    :param name: the list's.
    :raises QueryError: if it has no id, or none of the instances.
    """
    instance, job_id = (job.get("instance"), job.get("job_id")) if isinstance(job, dict) else (None, None)
    if type(job_id) is not int or not 0 < job_id < 2**63:
        raise QueryError(f"{name}: each needs a job_id, a whole number above 0")
    if not isinstance(instance, str) or instance not in instances:
        raise QueryError(f"{name}: instance must be one of {', '.join(sorted(instances))}")
    return JobRef(instance, job_id)


def identity(job: dict[str, Any], name: str) -> Identity:
    """Return what distinguishes the job from others of its id; see :func:`job_ref`."""
    try:
        return Identity(json_values.text(job.get("connection_id")), parse_time(job.get("started_at")))
    except ValueError:
        raise QueryError(f"{name}: connection_id must be text, and started_at an RFC 3339 time") from None


def refuse_unknown(params: QueryParams, known: frozenset[str]) -> None:
    """:raises QueryError: if a parameter is unknown, so that a misspelt filter does not match everything; or if a
    parameter with a single value is repeated."""
    if unknown := sorted(params.keys() - known):
        raise QueryError(f"{unknown[0][:40]}: unknown parameter; known are {', '.join(sorted(known))}")
    if repeated := [name for name in sorted(params.keys() - _LISTS) if len(params.getlist(name)) > 1]:
        raise QueryError(f"{repeated[0]}: give it once")


def job_ids(params: QueryParams) -> list[int]:
    """Return the values of ``job_id``.

    :raises QueryError: if one is wrong.
    """
    return _parsed(params, "job_id", parse_id, "whole numbers above 0")


def flag(params: QueryParams, name: str) -> bool | None:
    """Return a parameter that is true or false; None without it.

    :raises QueryError: if it is another value.
    """
    value = params.get(name)
    if value not in (None, "true", "false"):
        raise QueryError(f"{name}: give true or false")
    return None if value is None else value == "true"


def event_filter(params: QueryParams) -> EventFilter:
    """Return the filter of :data:`FILTERS`. All but ``terminal`` take several values, repeated or comma-separated.

    :raises QueryError: if one is wrong.
    """
    return EventFilter(
        instances=frozenset(_values(params, "instance")),
        connection_ids=frozenset(_values(params, "connection_id")),
        job_ids=frozenset(job_ids(params)),
        statuses=frozenset(_parsed(params, "status", JobStatus, "of " + ", ".join(each.value for each in JobStatus))),
        terminal=flag(params, "terminal"),
    )


def parse_id(text: str) -> int:
    """Return the id of a job, notification or delivery.

    :raises ValueError: if the text is not a whole number from 1 to 2^63 - 1.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,18}", text) or int(text) >= 2**63:
        raise ValueError("not an id")
    return int(text)


def path_id(request: Request, name: str = "id") -> int:
    """Return an id of the request's path.

    :raises HTTPException: 404 if it is none.
    """
    try:
        return parse_id(request.path_params[name])
    except ValueError:
        raise HTTPException(404) from None


def number(params: QueryParams, name: str, default: N, *, least: int, most: int) -> N:
    """Return a parameter in plain decimal notation, a whole number if the default is one.

    :raises QueryError: if it is none, or out of bounds.
    """
    text = params.get(name)
    if text is None:
        return default
    whole = isinstance(default, int)
    if _NUMBER.fullmatch(text) and not (whole and "." in text) and least <= (value := type(default)(text)) <= most:
        return value
    raise QueryError(f"{name}: give a {'whole ' if whole else ''}number from {least} to {most}")


def _values(params: QueryParams, name: str) -> Iterable[str]:
    # An empty value would match everything, and no database takes a NUL.
    values = [value for text in params.getlist(name) for value in text.split(",")]
    if "" in values or any("\0" in value for value in values):
        raise QueryError(f"{name}: give one or more values, separated by commas")
    return values


def _parsed(params: QueryParams, name: str, parse: Callable[[str], T], expected: str) -> list[T]:
    values = _values(params, name)
    try:
        return [parse(value) for value in values]
    except ValueError:
        raise QueryError(f"{name}: give {expected}") from None


async def one_of(read: Callable[..., Awaitable[Sequence[Stored]]], id: int) -> Stored | None:
    """Return the item with this id; None if there is none.

    :param read: the store's method that lists such items, newest first.
    """
    found = await read(limit=1, before=min(id + 1, 2**63 - 1))
    return found[0] if found and found[0].id == id else None

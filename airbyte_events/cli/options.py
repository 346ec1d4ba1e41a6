"""Options that several commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer

from airbyte_events._utils.printable import shown
from airbyte_events._utils.times import parse_time, utcnow
from airbyte_events.events import EventFilter, JobStatus

Choice = TypeVar("Choice", bound=StrEnum)


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers. Typer's own messages are about types and patterns, for programmers."""

    def parse(text: str) -> int:
        # A default value is parsed, too.
        if re.fullmatch(r"[0-9]{1,18}", str(text)) and low <= int(text) and (high is None or int(text) <= high):
            return int(text)
        limits = f"of at least {low:,}" if high is None else f"from {low:,} to {high:,}"
        raise typer.BadParameter(f"{shown(text)} is not a whole number {limits}")

    return parse


def decimal(low: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if low <= number < math.inf:
            return number
        raise typer.BadParameter(f"{shown(text)} is not a number of at least {low:g}")

    return parse


def choice(kind: type[Choice]) -> Callable[[str], Choice]:
    def parse(text: str) -> Choice:
        try:
            return kind(text)
        except ValueError:
            raise typer.BadParameter(f"{shown(text)} is not one of {', '.join(kind)}") from None

    return parse


def option(metavar: str, help: str, *names: str, parse: Callable[[str], object] | None = None) -> Any:
    """Return an option that takes a value.

    :param names: by default one, that of the parameter.
    :param parse: by default the parameter's type reads the value.
    """
    return typer.Option(*names, metavar=metavar, help=help, parser=parse)


def flag(help: str, *names: str) -> Any:
    """Return an option that takes no value."""
    return typer.Option(*names, help=help)


Config = Annotated[Path | None, option("FILE", "TOML file with settings. [AIRBYTE_EVENTS_CONFIG]", "--config")]
Host = Annotated[str | None, option("ADDRESS", "Address to listen on. [AIRBYTE_EVENTS_HOST, else 127.0.0.1]")]
Port = Annotated[
    int | None, option("PORT", "Port to listen on; 0: a free one. [AIRBYTE_EVENTS_PORT, else 8484]", parse=whole(0))
]
ListenerURL = Annotated[
    str | None,
    option(
        "URL",
        "Address of the listener. [AIRBYTE_EVENTS_LISTENER_URL, else the one of the settings on this machine] "
        "API token: AIRBYTE_EVENTS_LISTENER_TOKEN (or _FILE).",
        "--listener",
    ),
]
JSON = Annotated[bool, flag("Write JSON.", "--json")]

Instances = Annotated[list[str] | None, option("NAME", "Only this Airbyte's. May be repeated.", "--instance")]
Connections = Annotated[
    list[str] | None, option("ID|NAME", "Only this connection's, by id or name. May be repeated.", "--connection")
]
Jobs = Annotated[list[int] | None, option("ID", "Only this job. May be repeated.", "--job", parse=whole(1))]
Statuses = Annotated[
    list[JobStatus] | None,
    option(
        "STATUS", f"Only this status: {', '.join(JobStatus)}. May be repeated.", "--status", parse=choice(JobStatus)
    ),
]
Ended = Annotated[bool | None, flag("Only completed jobs, or only active ones.", "--ended/--active", "--terminal")]

AIRBYTE_HELP = "Airbyte in the settings, where there are several."
Instance = Annotated[str | None, option("NAME", AIRBYTE_HELP, "--instance")]


def event_filter(
    instances: Collection[str] | None,
    jobs: Collection[int] | None,
    statuses: Collection[JobStatus] | None,
    ended: bool | None,
) -> EventFilter:
    """Return the filter of these options."""
    return EventFilter(
        instances=frozenset(instances or ()),
        job_ids=frozenset(jobs or ()),
        statuses=frozenset(statuses or ()),
        terminal=ended,
    )


def uuid(name: str, text: str) -> str:
    """Return a UUID as Airbyte writes it.

    :raises typer.BadParameter: if the text is not a UUID.
    """
    try:
        return str(UUID(text))
    except ValueError:
        raise typer.BadParameter(
            f"{shown(text)} is not a UUID: write the one in the URL of its page in Airbyte", param_hint=name
        ) from None


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(name: str, text: str) -> float:
    """Return the seconds of a duration such as ``90``, ``90s``, ``15m``, ``2h`` or ``1d``.

    :raises typer.BadParameter: if the text is not a duration.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([smhd]?)", text.strip())
    if match is None:
        raise typer.BadParameter("not a duration: write 90s, 15m, 2h or 1d", param_hint=name)
    return float(match[1]) * _SECONDS[match[2] or "s"]


def since(name: str, text: str) -> datetime:
    """Return the time that an option names, or that was so long ago.

    :raises typer.BadParameter: if the text is neither.
    """
    try:
        return utcnow() - timedelta(seconds=seconds(name, text))
    except (typer.BadParameter, OverflowError):
        pass
    try:
        moment = parse_time(text)
    except ValueError:
        moment = None
    if moment is None:
        raise typer.BadParameter("write 15m, 2h or 1d, or a time such as 2026-01-31T08:00Z", param_hint=name)
    return moment

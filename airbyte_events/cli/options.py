"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from airbyte_events._utils.times import parse_time, utcnow
from airbyte_events.events import EventFilter, JobStatus

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings. [AIRBYTE_EVENTS_CONFIG]")
]
Host = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Address to listen on. [AIRBYTE_EVENTS_HOST, else 127.0.0.1]")
]
Port = Annotated[
    int | None,
    typer.Option(metavar="PORT", help="Port to listen on; 0: a free one. [AIRBYTE_EVENTS_PORT, else 8484]"),
]
ListenerURL = Annotated[
    str | None,
    typer.Option(
        "--listener",
        metavar="URL",
        help="Listener to ask. [AIRBYTE_EVENTS_LISTENER_URL, else the one of the settings on this machine] "
        "API token: AIRBYTE_EVENTS_LISTENER_TOKEN (or _FILE).",
    ),
]
JSON = Annotated[bool, typer.Option("--json", help="Write JSON.")]

Instances = Annotated[
    list[str] | None, typer.Option("--instance", metavar="NAME", help="Only this Airbyte's. May be repeated.")
]
Connections = Annotated[
    list[str] | None, typer.Option("--connection", metavar="ID", help="Only this connection's. May be repeated.")
]
Jobs = Annotated[list[int] | None, typer.Option("--job", metavar="ID", min=1, help="Only this job. May be repeated.")]
Statuses = Annotated[
    list[JobStatus] | None,
    typer.Option("--status", metavar="STATUS", help=f"Only this status: {', '.join(JobStatus)}. May be repeated."),
]
Ended = Annotated[
    bool | None, typer.Option("--ended/--active", "--terminal", help="Only completed jobs, or only active ones.")
]

AIRBYTE_HELP = "Airbyte in the settings, where there are several."
Instance = Annotated[str | None, typer.Option("--instance", metavar="NAME", help=AIRBYTE_HELP)]


def event_filter(
    instances: Collection[str] | None,
    connections: Collection[str] | None,
    jobs: Collection[int] | None,
    statuses: Collection[JobStatus] | None,
    ended: bool | None,
) -> EventFilter:
    """Return the filter of these options.

    :raises typer.BadParameter: if a connection's id is not a UUID.
    """
    return EventFilter(
        instances=frozenset(instances or ()),
        connection_ids=frozenset(uuid("--connection", each) for each in connections or ()),
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
        raise typer.BadParameter("not a UUID", param_hint=name) from None


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

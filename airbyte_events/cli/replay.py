"""``airbyte-events replay``: stored notifications are confirmed once more."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import typer

from airbyte_events._utils import json_values
from airbyte_events.cli import options
from airbyte_events.cli.api_client import Address, Listener, open_listener
from airbyte_events.cli.jobs import pages
from airbyte_events.cli.output import Output, status
from airbyte_events.cli.runner import run
from airbyte_events.errors import FeedRefused
from airbyte_events.listener.settings import load

_PAGE = 1000
_SETTLED_FOR_GOOD = frozenset({"ignored", "rejected"})

HELP = (
    "Confirm stored notifications again: the listener asks Airbyte once more about the jobs that they tell of. That "
    "costs a request each, or one for many together, and changes nothing that is right already."
)
EPILOG = (
    "The ids are those of GET /v1/notifications, of the dashboard and of airbyte-events jobs show.",
    "  airbyte-events replay 17 18",
    "What waits to be confirmed:",
    "  airbyte-events replay --pending",
    "Whatever came while Airbyte gave wrong answers:",
    "  airbyte-events replay --since 2h",
    "Exit codes: 0 all of them are confirmed again, 1 some could not be, 2 wrong usage or settings.",
)


def replay(
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", min=1, help="Notifications.")] = None,
    pending: Annotated[bool, typer.Option("--pending", help="All that wait to be confirmed.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="All since then: 2h, or 2026-01-31T08:00Z. With --pending: both.")
    ] = None,
    instance: Annotated[str | None, typer.Option(metavar="NAME", help="Of those, only this Airbyte's.")] = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> None:
    if bool(ids) == (pending or since is not None):
        raise typer.BadParameter("give either ids, or --pending, --since or both", param_hint="ID")
    start = None if since is None else options.since("--since", since)
    address = Address.of(load(config, listens=False), listener)
    output = Output(json=json)

    async def work() -> int:
        async with open_listener(address) as asked:
            chosen = ids or await _inbox(asked, start, pending=pending, instance=instance)
            refused = await _replay(asked, dict.fromkeys(chosen))
        _show(output, [id_ for id_ in chosen if id_ not in refused], refused)
        return 1 if refused else 0

    run(work)


async def _replay(listener: Listener, ids: Iterable[int]) -> dict[int, str]:
    """Have them confirmed again; those that are not, and why not."""
    refused = {}
    for id_ in ids:
        try:
            await listener.post(f"/v1/notifications/{id_}/replay")
        except FeedRefused as exc:
            if exc.status_code not in (404, 409):
                raise
            refused[id_] = str(exc).partition(f"{exc.status_code}: ")[2]
    return refused


def _show(output: Output, replayed: list[int], refused: dict[int, str]) -> None:
    if output.json:
        reasons = [{"id": id_, "reason": reason} for id_, reason in refused.items()]
        output.object({"replayed": replayed, "refused": reasons})
        return
    for id_ in replayed:
        output.line(f"{id_}", status("pending"), "is confirmed again")
    for id_, reason in refused.items():
        output.line(f"{id_}", status("failure"), reason)
    if not replayed and not refused:
        output.say("there are none")


async def _inbox(listener: Listener, since: datetime | None, *, pending: bool, instance: str | None) -> list[int]:
    """The notifications that are meant, the oldest first."""
    chosen: list[int] = []
    before: int | None = None
    while True:
        found, following = await pages(listener, "notifications", _PAGE, before)
        for each in found:
            received = json_values.instant(each.get("received_at"))
            if since is not None and received is not None and received < since:
                return chosen[::-1]
            wanted = each["outcome"] == "pending" if pending else each["outcome"] not in _SETTLED_FOR_GOOD
            if wanted and instance in (None, each["instance"]):
                chosen.append(int(each["id"]))
        if following is None:
            return chosen[::-1]
        before = int(following)

"""``airbyte-events replay``: confirms stored notifications again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import typer

from airbyte_events._utils import json_values
from airbyte_events.cli import options
from airbyte_events.cli.api_client import PAGE, Address, open_listener, pages
from airbyte_events.cli.options import flag, option, whole
from airbyte_events.cli.output import Output, status
from airbyte_events.cli.runner import command
from airbyte_events.errors import FeedRefused
from airbyte_events.feed.client import FeedClient
from airbyte_events.listener.settings import load

_FINAL = frozenset({"ignored", "rejected"})


@command(
    "replay",
    "The ids are in GET /v1/notifications, on the dashboard and in airbyte-events jobs show.",
    "  airbyte-events replay 17 18",
    "All that are pending:",
    "  airbyte-events replay --pending",
    "All that were received while Airbyte was in trouble:",
    "  airbyte-events replay --since 2h",
    codes={0: "all are confirmed again", 1: "some were refused, or the listener does not respond"},
)
async def replay(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID", parser=whole(1), help="Ids of notifications.")
    ] = None,
    pending: Annotated[bool, flag("All that are not confirmed yet.", "--pending")] = False,
    since: Annotated[
        str | None,
        option(
            "TIME",
            "All that were received since 2h ago or 2026-01-31T08:00Z. With --pending, only the pending ones.",
        ),
    ] = None,
    instance: Annotated[str | None, option("NAME", "Only this Airbyte's.")] = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> int:
    """Confirm stored notifications again. The listener asks Airbyte's API about their jobs once more: one request for
    each job, or one list for many. Correct states do not change."""
    if bool(ids) == (pending or since is not None):
        raise typer.BadParameter("give either ids, or --pending, --since or both", param_hint="ID")
    start = None if since is None else options.since("--since", since)
    address = Address.of(load(config, listens=False), listener)
    output = Output(json=json)
    async with open_listener(address) as api:
        chosen = ids or await _inbox(api, start, pending=pending, instance=instance)
        refused = await _replay(api, dict.fromkeys(chosen))
    _show(output, [id_ for id_ in chosen if id_ not in refused], refused)
    return 1 if refused else 0


async def _replay(listener: FeedClient, ids: Iterable[int]) -> dict[int, str]:
    refused = {}
    for id_ in ids:
        try:
            await listener.request("POST", f"/v1/notifications/{id_}/replay")
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
        output.line(f"{id_}", status("pending"), "will be confirmed again")
    for id_, reason in refused.items():
        output.line(f"{id_}", status("failure"), reason)
    if not replayed and not refused:
        output.note("no notifications match")


async def _inbox(listener: FeedClient, since: datetime | None, *, pending: bool, instance: str | None) -> list[int]:
    chosen: list[int] = []
    before: str | None = None
    while True:
        found, before, _ = await pages(listener, "notifications", PAGE, before)
        for each in found:
            received = json_values.instant(each.get("received_at"))
            if since is not None and received is not None and received < since:
                return chosen[::-1]
            wanted = each["outcome"] == "pending" if pending else each["outcome"] not in _FINAL
            if wanted and instance in (None, each["instance"]):
                chosen.append(int(each["id"]))
        if before is None:
            return chosen[::-1]

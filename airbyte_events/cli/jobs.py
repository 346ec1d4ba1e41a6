"""``airbyte-events jobs``: what a listener knows of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from airbyte_events._utils import json_values
from airbyte_events._utils.printable import shown
from airbyte_events.cli import options
from airbyte_events.cli.api_client import Address, Listener, open_listener
from airbyte_events.cli.output import Output, amount, duration, moment, status
from airbyte_events.cli.runner import run
from airbyte_events.errors import FeedError, FeedUnreachable
from airbyte_events.feed import client
from airbyte_events.listener.settings import load

_PAGE = 1000

HELP = "Show jobs as the listener knows them, the one that changed last first; or one job with its history: jobs show."
EPILOG = (
    "What runs:",
    "  airbyte-events jobs --active",
    "The last failures, with their reasons:",
    "  airbyte-events jobs --status failed --limit 5",
    "How the end of one was learnt, and when:",
    "  airbyte-events jobs show 17",
    "Exit codes: 0 done, 1 the listener does not answer or refuses, 2 wrong usage or settings.",
)
SHOW_HELP = (
    "Show one job: what is known of it, and where each piece of that came from and when. All of it was said by "
    "Airbyte's API; a webhook, a look at all jobs, or somebody who began to wait is why it was asked."
)
SHOW_EPILOG = (
    "  airbyte-events jobs show 17",
    "  airbyte-events jobs show cloud/17 --json | jq .history",
    "Exit codes: 0 done, 1 there is no such job, or the listener does not answer, 2 wrong usage or settings.",
)


def jobs(
    context: typer.Context,
    instance: options.Instances = None,
    connection: options.Connections = None,
    job: options.Jobs = None,
    status: options.Statuses = None,
    ended: options.Ended = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="At most so many.")] = 20,
    before: Annotated[
        int | None, typer.Option(metavar="NEXT", min=0, help="The next page: what the one before said is next.")
    ] = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    params = client.query(options.event_filter(instance, connection, job, status, ended))
    address = Address.of(load(config, listens=False), listener)
    output = Output(json=json)

    async def work() -> int:
        async with open_listener(address) as asked:
            found, following = await pages(asked, "jobs", limit, before, params)
        if json:
            output.object({"jobs": found, "next": following})
            return 0
        if found or not output.terminal:
            output.table(
                ("job", "status", "type", "connection", "started", "ended", "took", "records", "by"),
                [_row(each) for each in found],
                spare=("type", "started", "records", "took", "by", "ended"),
            )
        else:
            output.say("no such jobs")
        if following is not None and output.terminal:
            output.say(f"there are more: --before {following}, or a larger --limit")
        return 0

    run(work)


def show(
    job: Annotated[str, typer.Argument(metavar="[INSTANCE/]JOB_ID", help="Such as 17, or cloud/17.")],
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> None:
    instance, slash, number = job.rpartition("/")
    if not (number.isascii() and number.isdigit() and 0 < int(number[:20]) < 2**63) or (slash and not instance):
        raise typer.BadParameter("write a job's id, such as 17 or cloud/17", param_hint="JOB_ID")
    address = Address.of(load(config, listens=False), listener)
    output = Output(json=json)

    async def work() -> int:
        async with open_listener(address) as asked:
            name = instance or await _instance_of(asked, number)
            told = await asked.get(f"/v1/jobs/{name}/{number}")
        if json:
            output.object(told)
        else:
            _show(output, told)
        return 0

    run(work)


async def pages(
    listener: Listener, what: str, limit: int, before: int | None, params: Sequence[tuple[str, str]] = ()
) -> tuple[list[dict[str, Any]], str | None]:
    """The first so many of a paged list of the listener's, and where the next page begins, if there is one."""
    found: list[dict[str, Any]] = []
    following = None if before is None else str(before)
    while True:
        page = [("limit", str(min(_PAGE, limit - len(found))))]
        if following is not None:
            page.append(("before", following))
        answer = await listener.get(f"/v1/{what}", [*params, *page])
        items = answer.get(what)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise FeedUnreachable(f"{listener.address.url}/v1/{what} gave an answer that is no listener's")
        found += items
        following = json_values.text(answer.get("next"))
        if following is None or not items or len(found) >= limit:
            return found, following


async def _instance_of(listener: Listener, number: str) -> str:
    found, _ = await pages(listener, "jobs", _PAGE, None, [("job_id", number)])
    if not found:
        raise FeedError(f"nothing is known of a job {number}")
    if len(found) > 1:
        names = " or ".join(f"{each['instance']}/{number}" for each in found)
        raise FeedError(f"several Airbytes have a job {number}: write {names}")
    return str(found[0]["instance"])


def _row(job: dict[str, Any]) -> list[str | Text]:
    names = json_values.mapping(job.get("names"))
    return [
        f"{job['instance']}/{job['job_id']}",
        status(job["status"]),
        job["job_type"] or "",
        names.get("connection") or job["connection_id"] or "",
        moment(job["started_at"]),
        moment(job["finished_at"]),
        duration(job["duration_seconds"]),
        amount(job["records"]),
        job["origin"],
    ]


_HOW = {
    "webhook": "a webhook came, and the API said the same",
    "poll": "a look at all jobs found it",
    "submit": "somebody began to wait, and the API was asked",
}


def _show(output: Output, told: dict[str, Any]) -> None:
    job, names = told["job"], json_values.mapping(told["job"].get("names"))
    error = job.get("error")
    connection = [part for part in (names.get("connection"), job["connection_id"]) if part]
    output.facts(
        [
            ("job", f"{job['instance']}/{job['job_id']}"),
            ("status", status(job["status"])),
            ("type", job["job_type"]),
            ("connection", "  ".join(connection) or None),
            ("workspace", "  ".join(part for part in (names.get("workspace"), job["workspace_id"]) if part) or None),
            ("from", names.get("source")),
            ("to", names.get("destination")),
            ("started", moment(job["started_at"]) or None),
            ("ended", moment(job["finished_at"]) or None),
            ("took", duration(job["duration_seconds"]) or None),
            ("records", amount(job["records"]) or None),
            ("bytes", amount(job["bytes"]) or None),
            ("reason", None if not error else Text(shown(_reason(error)), style="red")),
            ("page", job.get("url")),
        ]
    )
    output.line("")
    output.table(("learnt", "what", "how", "cursor"), _history(told))


def _reason(error: dict[str, Any]) -> str:
    where = ", ".join(f"{name} {error[name]}" for name in ("type", "origin") if error.get(name))
    return f"{error.get('message') or 'no message'}" + (f" ({where})" if where else "")


def _history(told: dict[str, Any]) -> list[list[str | Text]]:
    rows: list[tuple[str, list[str | Text]]] = []
    for envelope in told["history"]:
        event = envelope["data"]
        lag = _seconds(event["finished_at"], event["observed_at"]) if event["finished_at"] else None
        late = f", {duration(lag)} after the end" if lag is not None and lag >= 0 else ""
        how = _HOW.get(event["origin"], event["origin"]) + late
        what = status(event["status"])
        rows.append((event["observed_at"], [moment(event["observed_at"]), what, how, envelope["id"]]))
    if notification := told.get("notification"):
        id_, kind = notification["id"], notification["kind"]
        received = notification["received_at"]
        rows.append((received, [moment(received), "webhook", f"notification {id_}, {kind}: into the inbox", ""]))
        if settled := notification["settled_at"]:
            outcome = status(notification["outcome"])
            rows.append((settled, [moment(settled), outcome, f"what became of notification {id_}", ""]))
    return [row for _, row in sorted(rows, key=lambda each: each[0])]


def _seconds(start: str, end: str) -> float | None:
    before, after = json_values.instant(start), json_values.instant(end)
    if not isinstance(before, datetime) or not isinstance(after, datetime):
        return None
    return (after - before).total_seconds()

"""``airbyte-events jobs``: lists jobs, or shows one with its history."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.text import Text

from airbyte_events._utils import json_values
from airbyte_events._utils.printable import shown
from airbyte_events._utils.times import duration, utcnow
from airbyte_events.cli import options
from airbyte_events.cli.api_client import PAGE, Address, connection_ids, open_listener, pages
from airbyte_events.cli.options import option, whole
from airbyte_events.cli.output import Output, amount, moment, status
from airbyte_events.cli.runner import command
from airbyte_events.errors import FeedError, FeedRefused
from airbyte_events.events import Progress, StreamProgress, read_event
from airbyte_events.feed import client
from airbyte_events.feed.client import FeedClient
from airbyte_events.listener.settings import load

_NEVER = "not polled yet"


@command(
    "jobs",
    "Active jobs:",
    "  airbyte-events jobs --active",
    "The last failures:",
    "  airbyte-events jobs --status failed --limit 5",
    "How and when the completion of one was detected, and the reason of a failure:",
    "  airbyte-events jobs show 17",
    codes={0: "done", 1: "the listener does not respond or refuses"},
)
async def jobs(
    context: typer.Context,
    instance: options.Instances = None,
    connection: options.Connections = None,
    job: options.Jobs = None,
    status: options.Statuses = None,
    ended: options.Ended = None,
    limit: Annotated[
        int, option("NUMBER", "Largest number of jobs to list.", "--limit", "-n", parse=whole(1, 1_000_000))
    ] = 20,
    before: Annotated[
        int | None, option("NEXT", "Page to start at: the `next` of the previous page.", parse=whole(0))
    ] = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> int:
    """List jobs, or show one with its history. The most recently changed job comes first."""
    if context.invoked_subcommand is not None:
        return 0
    wanted = options.event_filter(instance, job, status, ended)
    address = Address.of(load(config, listens=False), listener)
    output = Output(json=json)
    async with open_listener(address) as api:
        ids = await connection_ids(api, connection or (), wanted.instances)
        params = client.query(replace(wanted, connection_ids=ids))
        found, following, first = await pages(api, "jobs", limit, None if before is None else str(before), params)
    as_of = json_values.mapping(first.get("as_of"))
    if json:
        output.object({"jobs": found, "next": following, "as_of": as_of})
        return 0
    if found or not output.terminal:
        output.table(
            ("job", "status", "type", "connection", "started", "completed", "duration", "records", "detected by"),
            [_row(each) for each in found],
            optional=("type", "started", "records", "duration", "detected by", "completed"),
        )
    else:
        output.note("No matching jobs")
    for name in sorted(set(instance or ()) - as_of.keys()) if not found else ():
        output.note(f"the listener has no Airbyte {name}: airbyte-events doctor lists those that it has")
    for name, polled in as_of.items() if output.terminal else ():
        polled_at = _polled(polled)
        output.note(f"{name}: {_NEVER if polled_at is None else f'as of {polled_at}'}")
    if following is not None and output.terminal:
        output.note(f"more jobs: --before {following}, or a larger --limit")
    return 0


@command(
    "show",
    "  airbyte-events jobs show 17",
    "  airbyte-events jobs show cloud/17 --json | jq .history",
    codes={0: "done", 1: "there is no such job, or the listener does not respond"},
)
async def show(
    job: Annotated[str, typer.Argument(metavar="[INSTANCE/]JOB_ID", help="For example 17, or cloud/17.")],
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> int:
    """Show one job with its history. It says when and how each status was detected. Every status is from Airbyte's API,
    read because of a webhook, a poll, or a new subscriber."""
    instance, slash, number = job.rpartition("/")
    if not (number.isascii() and number.isdigit() and 0 < int(number[:20]) < 2**63) or (slash and not instance):
        raise typer.BadParameter("write a job's id, such as 17 or cloud/17", param_hint="JOB_ID")
    address = Address.of(load(config, listens=False), listener)
    output = Output(json=json)
    async with open_listener(address) as api:
        name = instance or await _instance_of(api, number)
        try:
            details = await api.request("GET", f"/v1/jobs/{name}/{number}")
        except FeedRefused as exc:
            if exc.status_code != 404:
                raise
            raise FeedError(_unknown(f"{name}/{number}")) from exc
        progress = await _progress(api, details)
    if json:
        output.object(details if progress is None else {**details, "progress": progress.data()})
    else:
        _show(output, details, progress)
    return 0


async def _instance_of(listener: FeedClient, number: str) -> str:
    found, *_ = await pages(listener, "jobs", PAGE, None, [("job_id", number)])
    if not found:
        raise FeedError(_unknown(number))
    if len(found) > 1:
        names = " or ".join(f"{each['instance']}/{number}" for each in found)
        raise FeedError(f"job {number} exists in several Airbytes: write {names}")
    return str(found[0]["instance"])


def _unknown(job: str) -> str:
    return f"the listener has no job {job}: airbyte-events jobs lists its jobs"


async def _progress(listener: FeedClient, details: dict[str, Any]) -> Progress | None:
    """Return the progress of an active job; None if there is none, or the listener is of an older release."""
    event = read_event(details["job"])
    if event is None or event.terminal:
        return None
    try:
        return next(iter(await listener.progress(event.ref, streams=True)), None)
    except FeedRefused:
        return None


def _polled(polled: object) -> str | None:
    """Return when an instance was polled last; None if it was not.

    :param polled: the last poll, of the listener's JSON.
    """
    at = json_values.instant(polled)
    return None if at is None else f"{moment(at)}, {duration(max(0.0, (utcnow() - at).total_seconds()))} ago"


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


_HOW = {"webhook": "webhook, confirmed by the API", "poll": "poll", "submit": "read from the API for a new subscriber"}


def _show(output: Output, details: dict[str, Any], progress: Progress | None) -> None:
    job, names = details["job"], json_values.mapping(details["job"].get("names"))
    event = read_event(job)
    output.facts(
        [
            ("job", f"{job['instance']}/{job['job_id']}"),
            ("status", status(job["status"])),
            ("type", job["job_type"]),
            ("connection", "  ".join(filter(None, (names.get("connection"), job["connection_id"])))),
            ("workspace", "  ".join(filter(None, (names.get("workspace"), job["workspace_id"])))),
            ("from", names.get("source")),
            ("to", names.get("destination")),
            ("started", moment(job["started_at"])),
            ("completed", moment(job["finished_at"])),
            ("duration", duration(job["duration_seconds"])),
            ("records", amount(job["records"])),
            ("bytes", amount(job["bytes"])),
            ("attempts", amount(job.get("attempts"))),
            *([] if progress is None else _progress_facts(progress)),
            ("reason", Text(shown(str(event.error)), style="red") if event and event.error else None),
            ("page", job.get("url")),
            ("task", job.get("task_url")),
            ("as of", _polled(details.get("as_of")) or _NEVER),
        ]
    )
    output.line("")
    if progress is not None and progress.streams:
        rows = [[_stream(each), amount(each.records), amount(each.bytes)] for each in progress.streams]
        output.table(("stream", "records read", "bytes read"), rows)
        output.line("")
    output.table(("time", "status", "detected by", "cursor"), _history(details))


def _progress_facts(progress: Progress) -> list[tuple[str, str | None]]:
    usual, unchanged = progress.usual, progress.unchanged_seconds
    return [
        ("progress", progress.text()),
        ("usually", None if usual is None else f"{duration(usual.duration_seconds)}, the median of {usual.jobs}"),
        ("unchanged", f"for {duration(unchanged)}" if unchanged >= 1 else None),
    ]


def _stream(stream: StreamProgress) -> str:
    return ".".join(filter(None, (stream.namespace, stream.name)))


def _history(details: dict[str, Any]) -> list[list[str | Text]]:
    rows: list[tuple[str, list[str | Text]]] = []
    for envelope in details["history"]:
        event = envelope["data"]
        ended, seen = json_values.instant(event["finished_at"]), json_values.instant(event["observed_at"])
        late = ""
        if ended is not None and seen is not None and seen >= ended:
            late = f", {duration((seen - ended).total_seconds())} after the completion"
        how = _HOW.get(event["origin"], event["origin"]) + late
        what = status(event["status"])
        rows.append((event["observed_at"], [moment(event["observed_at"]), what, how, envelope["id"]]))
    for receipt in details["job"].get("receipts", ()):
        received, since = json_values.instant(receipt["received_at"]), json_values.instant(receipt["waiting_since"])
        waited = f" that waited {duration((received - since).total_seconds())}" if received and since else ""
        rows.append((receipt["received_at"], [moment(received), "received", f"by a task{waited}", ""]))
    if notification := details.get("notification"):
        id_, kind = notification["id"], notification["kind"]
        received = notification["received_at"]
        rows.append((received, [moment(received), "webhook", f"notification {id_} received: {kind}", ""]))
        if settled := notification["settled_at"]:
            outcome = status(notification["outcome"])
            rows.append((settled, [moment(settled), outcome, f"notification {id_} processed", ""]))
    return [row for _, row in sorted(rows, key=lambda each: each[0])]

"""``airbyte-events notify``: the targets of outgoing notifications, and a test message to them."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import typer

from airbyte_events._utils.times import utcnow
from airbyte_events.cli import options
from airbyte_events.cli.output import Output, status
from airbyte_events.cli.runner import command
from airbyte_events.errors import SettingsError
from airbyte_events.events import Cursor, JobEvent, JobRef, JobStatus, Origin
from airbyte_events.listener.forwarding.sender import Sender, client
from airbyte_events.listener.forwarding.targets import Parcel
from airbyte_events.listener.notify.targets import body_of, notify_targets, refuse_own
from airbyte_events.listener.settings import Settings, load
from airbyte_events.listener.settings.notify import NotifySettings
from airbyte_events.store.base import COMPLETION
from airbyte_events.store.records import Delivery, DeliveryState, Outcome, StoredNotification

HELP = "List and test the targets of outgoing notifications."
EPILOG = (
    "The targets are [[notify]] tables of the settings file:",
    "  airbyte-events notify list --config airbyte-events.toml",
    "  airbyte-events notify test on-call --config airbyte-events.toml",
)

_NONE = "the settings have no [[notify]] table; write one into the file that --config names"
_FILTERS = ("instances", "connections", "workspaces", "statuses", "job_types")
_SECONDS = 10.0


@command("list", "  airbyte-events notify list --config airbyte-events.toml")
async def list_targets(config: options.Config = None, json: options.JSON = False) -> int:
    """List the targets in the settings, with their filters and signals. URLs are shown without their paths."""
    settings, output = load(config, listens=False), Output(json=json)
    found = [
        {
            "name": each.settings.name,
            "type": each.settings.type,
            "url": each.shown,
            "filters": _filters(each.settings),
            "signals": list(each.settings.signals),
        }
        for each in notify_targets(settings.notify).values()
    ]
    if json:
        output.object({"targets": found})
    elif not found:
        output.note(_NONE)
    else:
        output.table(("name", "type", "url", "completions", "signals"), list(map(_row, found)))
    return 0


@command("test", "  airbyte-events notify test", "  airbyte-events notify test on-call")
async def send_test(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The name of a target. [all]")] = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> int:
    """Send a test message to all targets, or to one. It reports a succeeded job of the instance notify-test, and
    ignores filters. Nothing is stored or retried. The listener need not run."""
    settings, output = load(config, listens=False), Output(json=json)
    targets = notify_targets(_chosen(settings, name))
    refuse_own(settings, targets.values())
    faults: dict[str, str | None] = {}
    async with client(targets, _SECONDS) as http:
        for target in targets.values():
            faults[target.settings.name] = (await Sender(target, http).send(Parcel.of(_sample(target.name)))).fault
    right = all(fault is None for fault in faults.values())
    if json:
        found = [{"name": each, "sent": fault is None, "error": fault} for each, fault in faults.items()]
        output.object({"targets": found, "right": right})
    else:
        rows = [(each, status("failure" if fault else "ok"), fault or "") for each, fault in faults.items()]
        output.table(("name", "result", "error"), rows)
    return 0 if right else 1


def _chosen(settings: Settings, name: str | None) -> list[NotifySettings]:
    """:raises SettingsError: if there is no such target."""
    chosen = [each for each in settings.notify if name in (None, each.name)]
    if not settings.notify:
        raise SettingsError(_NONE)
    if not chosen:
        raise SettingsError(
            f"NAME: no target has the name {name}; use one of {', '.join(t.name for t in settings.notify)}"
        )
    return chosen


def _row(target: dict[str, Any]) -> list[str]:
    filters = [f"{key} {', '.join(values)}" for key, values in target["filters"].items()]
    signals = ", ".join(target["signals"])
    return [target["name"], target["type"], target["url"], "; ".join(filters) or "all", signals or "none"]


def _filters(settings: NotifySettings) -> dict[str, list[str]]:
    fields = NotifySettings.model_fields
    given: dict[str, Any] = {key: getattr(settings, key) for key in _FILTERS}
    return {key: list(values) for key, values in given.items() if values != fields[key].default}


def _sample(target: str) -> Delivery:
    """Return a delivery of a completion that did not happen, with an event id of its own."""
    now = utcnow()
    event = JobEvent(
        ref=JobRef("notify-test", 1),
        status=JobStatus.SUCCEEDED,
        observed_at=now,
        origin=Origin.UNKNOWN,
        job_type="sync",
        finished_at=now,
        names={"connection": "a test by airbyte-events notify test"},
        unconfirmed=frozenset({"names"}),
        cursor=Cursor(secrets.token_hex(8), 1),
    )
    notification = StoredNotification(
        id=1,
        instance=event.ref.instance,
        received_at=now,
        kind=COMPLETION,
        job_id=event.ref.job_id,
        body=body_of(event, "https://airbyte.example.com"),
        outcome=Outcome.CONFIRMED,
    )
    return Delivery(id=1, notification=notification, target=target, state=DeliveryState.DUE, attempts=0, due_at=now)

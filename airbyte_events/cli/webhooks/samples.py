"""``airbyte-events webhooks test``: posts a sample of each notification, and shows how it was processed."""

from __future__ import annotations

from typing import Annotated, Any

from rich.text import Text

from airbyte_events.cli import options
from airbyte_events.cli.api_client import Address, address_of, open_listener, receiver_url
from airbyte_events.cli.options import flag
from airbyte_events.cli.output import Output, status
from airbyte_events.cli.runner import command
from airbyte_events.cli.webhooks import probe
from airbyte_events.cli.webhooks.plan import URL
from airbyte_events.cli.webhooks.workspaces import ReceiverURLs
from airbyte_events.errors import FeedUnreachable
from airbyte_events.listener.settings import load


@command(
    "test",
    "  airbyte-events webhooks test",
    "Through the proxy in front of the listener:",
    "  airbyte-events webhooks test --url https://events.example.com",
    codes={0: "all were recognised", 1: "some were not"},
)
async def send_samples(
    url: URL = None,
    forward: Annotated[bool, flag("Let the listener forward them.", "--forward")] = False,
    instance: options.Instance = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> int:
    """Post a sample of each notification. Shows how the listener processed each. Their jobs do not exist, so no task
    completes. They are not forwarded, unless --forward is given."""
    settings = load(config, listens=False)
    address = Address.of(settings, listener)
    name = instance or next(iter(settings.instances), "default")
    output = Output(json=json)
    base = address_of("--url", url) if url else receiver_url(settings, address)
    target = ReceiverURLs.of(settings, name, base).url
    async with open_listener(address) as api:
        posted, results = [], []
        for sample in probe.samples():
            answer = await probe.post(target, sample.body, forward=forward)
            if answer.status is None:
                where = target.rpartition("/")[0] + "/TOKEN"
                raise FeedUnreachable(f"{where}: {answer.fault}; {probe.CHECK_WAY}")
            posted.append((sample, answer))
        for sample, answer in posted:
            stored = None if answer.id is None else await probe.found(api, answer.id, settled=True)
            results.append(_result(sample, answer, stored))
    right = all(each["right"] for each in results)
    if json:
        output.object({"notifications": results, "right": right})
    else:
        headings = ("sent", "response", "recognised as", "outcome", "", "why")
        output.table(headings, list(map(_row, results)), optional=headings[1:3] if right else ())
    return 0 if right else 1


def _row(result: dict[str, Any]) -> list[str | Text]:
    return [
        result["sent"],
        str(result["status"] or "none"),
        result["kind"] or "",
        status(result["outcome"] or ""),
        status("ok" if result["right"] else "failure"),
        Text(result["meaning"], style="dim" if result["right"] else ""),
    ]


def _result(sample: probe.Sample, answer: probe.Posted, stored: dict[str, Any] | None) -> dict[str, Any]:
    kind, outcome = (None, None) if stored is None else (stored.get("kind"), stored.get("outcome"))
    right = kind == sample.kind and outcome == sample.outcome
    meaning = sample.meaning
    if answer.fault:
        meaning = answer.fault
    elif stored is None:
        meaning = "it was accepted, but is not in the inbox: --listener is another listener than --url"
    elif outcome == "pending":
        meaning = "the listener can't ask Airbyte about it: run airbyte-events doctor"
    elif not right:
        meaning = f"expected {sample.kind} with the outcome {sample.outcome}"
    return {
        "sent": sample.name,
        "status": answer.status,
        "notification": answer.id,
        "kind": kind,
        "outcome": outcome,
        "right": right,
        "meaning": meaning,
    }

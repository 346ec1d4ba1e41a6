"""``airbyte-events webhooks test``: every kind of body that Airbyte sends, and what becomes of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from airbyte_events.cli import options
from airbyte_events.cli.api_client import Address, open_listener, receiver_url
from airbyte_events.cli.output import Output, status
from airbyte_events.cli.runner import run
from airbyte_events.cli.webhooks import probe
from airbyte_events.cli.webhooks.plan import URL, base_url
from airbyte_events.cli.webhooks.workspaces import Ours
from airbyte_events.listener.settings import load

HELP = (
    "Send the listener every kind of body that Airbyte sends, and show what became of each. The jobs that they name "
    "exist nowhere, so no task is completed by it; Slack and the like are spared, unless --forward is given."
)
EPILOG = (
    "  airbyte-events webhooks test",
    "Through the proxy that Airbyte comes by:",
    "  airbyte-events webhooks test --url https://events.example.com",
    "Exit codes: 0 each was taken for what it is, 1 not, 2 wrong usage or settings.",
)


def send_samples(
    url: URL = None,
    forward: Annotated[bool, typer.Option("--forward", help="Let the listener forward them.")] = False,
    instance: options.Instance = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> None:
    settings = load(config, listens=False)
    address = Address.of(settings, listener)
    name = instance or next(iter(settings.instances), "default")
    tokens = tuple(token.get_secret_value() for token in settings.webhook_tokens)
    ours = Ours(instance=name, tokens=tokens, base=base_url(url, settings) or receiver_url(settings, address))
    output = Output(json=json)
    target = ours.url

    async def work() -> int:
        async with open_listener(address) as asked:
            posted = [(sample, await probe.post(target, sample.body, forward=forward)) for sample in probe.samples()]
            told = []
            for sample, answer in posted:
                kept = None if answer.id is None else await probe.found(asked, answer.id, settled=True)
                told.append(_came_of(sample, answer, kept))
        right = all(each["right"] for each in told)
        if json:
            output.object({"notifications": told, "right": right})
            return 0 if right else 1
        output.table(
            ("sent", "answer", "taken for", "became", "", "why"),
            [
                [
                    each["sent"],
                    str(each["status"] or "none"),
                    each["kind"] or "",
                    status(each["outcome"] or ""),
                    status("ok" if each["right"] else "failure"),
                    Text(each["meaning"], style="dim") if each["right"] else each["meaning"],
                ]
                for each in told
            ],
            spare=("answer", "taken for") if right else (),
        )
        return 0 if right else 1

    run(work)


def _came_of(sample: probe.Sample, answer: probe.Posted, kept: dict[str, Any] | None) -> dict[str, Any]:
    kind, outcome = (None, None) if kept is None else (kept.get("kind"), kept.get("outcome"))
    right = kind == sample.kind and outcome == sample.outcome
    meaning = sample.meaning
    if answer.fault:
        meaning = answer.fault
    elif kept is None:
        meaning = "it was taken, and is not in the inbox of the listener that was asked: is that another one?"
    elif outcome == "pending":
        meaning = "the listener can't ask Airbyte about it: airbyte-events doctor"
    elif not right:
        meaning = f"it should have been taken for {sample.kind} and become {sample.outcome}"
    return {
        "sent": sample.name,
        "status": answer.status,
        "notification": answer.id,
        "kind": kind,
        "outcome": outcome,
        "right": right,
        "meaning": meaning,
    }

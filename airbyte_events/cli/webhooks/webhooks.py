"""``airbyte-events webhooks``: points Airbyte's webhooks at the listener."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from airbyte_events.cli import options
from airbyte_events.cli.airbyte import open_airbyte
from airbyte_events.cli.options import flag, option
from airbyte_events.cli.output import Output, counted, status
from airbyte_events.cli.questions import confirmed
from airbyte_events.cli.runner import command
from airbyte_events.cli.webhooks import probe
from airbyte_events.cli.webhooks.backup import plan_uninstall
from airbyte_events.cli.webhooks.plan import URL, Keep, Plan, Workspaces
from airbyte_events.cli.webhooks.workspaces import (
    KINDS,
    REQUIRED,
    ReceiverURLs,
    Workspace,
    apply,
    plan_install,
    redacted,
)
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings import load

HELP = "Point Airbyte's webhooks at the listener. Also check them, and restore the previous URLs."
EPILOG = (
    "Airbyte's address and credentials and the webhook token are those of the listener's settings.",
    "  airbyte-events webhooks install --url https://events.example.com --dry-run",
    "  airbyte-events webhooks install --url https://events.example.com",
    "  airbyte-events webhooks status",
    "  airbyte-events webhooks test",
    "  airbyte-events webhooks uninstall",
)

_LEFT_OPEN = (
    "this test was sent from here: to see that Airbyte's own machine reaches the listener, press Test in Airbyte's "
    "notification settings, or run a sync"
)


def _kind(text: str) -> str:
    if text not in KINDS:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(KINDS)}")
    return text


CHANGE_THIS = "Change this in Airbyte? [y/N]: "
_DryRun = Annotated[bool, flag("Show the changes without making them.", "--dry-run")]
_Yes = Annotated[bool, flag("Do not ask for confirmation.", "--yes", "-y")]


@command(
    "install",
    "  airbyte-events webhooks install --workspace ID --url https://events.example.com",
    "Every kind of notification, without asking:",
    "  airbyte-events webhooks install --url https://events.example.com --all-kinds --yes",
    codes={0: "installed and tested", 1: "failed"},
)
async def install(
    workspace: Workspaces = None,
    url: URL = None,
    kind: Annotated[
        list[str] | None,
        option(
            "KIND",
            f"Set only this kind. May be repeated. [default: {' and '.join(REQUIRED)}; others: "
            f"{', '.join(kind for kind in KINDS if kind not in REQUIRED)}]",
            parse=_kind,
        ),
    ] = None,
    all_kinds: Annotated[bool, flag("Set all kinds.", "--all-kinds")] = False,
    keep: Keep = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    instance: options.Instance = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> int:
    """Set Airbyte's webhook URLs to the listener's. The previous URLs are saved in a file that only you can read, for
    uninstall. A second file has them as the setting FORWARD_URLS, so that the listener can forward to them. Then
    Airbyte sends a test to the new URL, and the command checks that it arrived. If Airbyte sends none, the command
    posts one."""
    plan = Plan.of(load(config, listens=False), instance, workspace, url, listener, keep)
    kinds = KINDS if all_kinds else kind or REQUIRED
    output = Output(json=json)
    plan.receiver.url  # noqa: B018 -- reports a missing setting before Airbyte is asked
    async with open_airbyte(plan.instance) as airbyte:
        workspaces = await plan.find_workspaces(airbyte)
        changes = list(plan_install(workspaces, kinds, plan.receiver))
        data = [change.data(plan.receiver) for change in changes]
        if not _agreed(output, data, dry_run=dry_run, yes=yes):
            return 0 if dry_run else 1
        await plan.make(airbyte, changes)
    note_replaced(output, plan, len(workspaces))
    proof = await plan.prove()
    if json:
        output.object(
            {
                "changes": data,
                "kept": str(plan.backup.file) if changes else None,
                "forward_urls_file": str(plan.backup.forward_file) if plan.backup.forward_urls() else None,
                "proven": not proof.remedy,
                "proof": proof.text,
                "proven_by_airbyte": proof.by_airbyte and not proof.remedy,
            }
        )
    else:
        show_proof(output, proof)
    return 1 if proof.remedy else 0


def note_replaced(output: Output, plan: Plan, workspaces: int) -> None:
    """Note which previous URLs receive nothing now, and how to forward to them.

    :param workspaces: the number of workspaces that were changed.
    """
    forwarded = tuple(url.get_secret_value() for url in plan.instance.forward_urls)
    urls = {entry.partition("=")[2] for entry in plan.backup.forward_urls()}
    silent = [url for url in urls if not any(entry.endswith(url) for entry in forwarded)]
    if silent:
        output.note(
            f"previous URLs that receive nothing now: {len(silent)}; to forward to them, start the listener with "
            f"AIRBYTE_EVENTS_FORWARD_URLS_FILE={plan.backup.forward_file}"
        )
    if len(urls) > 1 and workspaces > 1:
        output.note("forwarding does not distinguish workspaces: each previous URL receives the notifications of all")


def show_proof(output: Output, proof: probe.Proof) -> None:
    """Show whether a test arrived, with what to do next."""
    output.prose(status("failure" if proof.remedy else "ok"), proof.text)
    if note := proof.remedy or ("" if proof.by_airbyte else _LEFT_OPEN):
        output.note(note)


@command(
    "uninstall",
    "  airbyte-events webhooks uninstall --dry-run",
)
async def uninstall(
    workspace: Workspaces = None,
    url: URL = None,
    keep: Keep = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    instance: options.Instance = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> int:
    """Restore the URLs that install replaced. URLs that were changed since stay as they are."""
    if keep is not None and not keep.exists():
        # Without the previous URLs it would remove those of somebody who mistyped a name.
        raise SettingsError(f"--keep: {keep}: no such file; name the one that webhooks install wrote")
    plan = Plan.of(load(config, listens=False), instance, workspace, url, None, keep)
    output = Output(json=json)
    async with open_airbyte(plan.instance) as airbyte:
        changes = list(plan_uninstall(await plan.find_workspaces(airbyte), plan.receiver, plan.backup))
        data = [change.data(plan.receiver) for change in changes]
        if not _agreed(output, data, dry_run=dry_run, yes=yes):
            return 0 if dry_run else 1
        await apply(airbyte, changes)
        if changes:
            plan.backup.forget(changes)
            plan.backup.save()
    if changes and plan.backup.forward_file.exists() and not plan.backup.forward_urls():
        output.note(
            "Airbyte itself notifies these URLs again, so remove this setting from the listener: "
            f"AIRBYTE_EVENTS_FORWARD_URLS_FILE={plan.backup.forward_file}"
        )
    if json:
        output.object({"changes": data})
    elif changes:
        output.prose(status("ok"), f"{counted(len(changes), 'previous setting')} restored in Airbyte")
    return 0


@command(
    "status",
    "  airbyte-events webhooks status --url https://events.example.com",
    codes={0: "successes and failures go to the listener", 1: "they do not"},
)
async def show_status(
    workspace: Workspaces = None,
    url: URL = None,
    keep: Keep = None,
    instance: options.Instance = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> int:
    """Show where Airbyte sends notifications. Workspaces that do not notify the listener are failures."""
    plan = Plan.of(load(config, listens=False), instance, workspace, url, listener, keep)
    output = Output(json=json)
    async with open_airbyte(plan.instance) as airbyte:
        workspaces = await plan.find_workspaces(airbyte)
    rows = [_judged(each, kind, plan.receiver) for each in workspaces for kind in KINDS]
    right = all(row["verdict"] != "failure" for row in rows)
    if json:
        output.object({"webhooks": rows, "right": right})
    else:
        output.table(
            ("workspace", "kind", "should be", "is", ""),
            [[r["workspace"], r["kind"], r["should"], r["is"], status(r["verdict"])] for r in rows],
            optional=("should be",),
        )
    if not right:
        chosen = "" if instance is None else f" --instance {instance}"
        where = plan.receiver.base or "URL"
        output.note(f"to point them at the listener: airbyte-events webhooks install{chosen} --url {where}")
    return 0 if right else 1


def _judged(workspace: Workspace, kind: str, receiver: ReceiverURLs) -> dict[str, str]:
    webhook = workspace.webhooks[kind]
    needed = kind in REQUIRED
    right = webhook.enabled and receiver.is_current(webhook.url)
    wrong = needed or (webhook.enabled and receiver.includes(webhook.url))
    should = "the listener" if receiver.base is None else f"{receiver.base}/webhooks/{receiver.instance}/…"
    return {
        "workspace_id": workspace.id,
        "workspace": workspace.name,
        "kind": kind,
        "should": should if wrong else "anywhere",
        "is": redacted(webhook, receiver),
        "verdict": "ok" if right else "failure" if wrong else "",
    }


def show_changes(output: Output, changes: list[dict[str, str]]) -> None:
    columns = ("workspace", "kind", "before", "after")
    output.table(columns, [[each[column] for column in columns] for each in changes])


def _agreed(output: Output, changes: list[dict[str, str]], *, dry_run: bool, yes: bool) -> bool:
    if not changes:
        output.note("Airbyte needs no change")
        return True
    if output.json and dry_run:
        output.object({"changes": changes})
    elif not output.json:
        show_changes(output, changes)
    if dry_run or yes:
        return not dry_run
    if not sys.stdin.isatty() or output.json:
        raise SettingsError(
            "--yes: not given, and there is no terminal to ask at; write --yes, or --dry-run to see the changes"
        )
    if confirmed(CHANGE_THIS):
        return True
    output.note("nothing was changed")
    return False

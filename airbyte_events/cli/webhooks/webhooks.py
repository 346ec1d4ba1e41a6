"""``airbyte-events webhooks``: has Airbyte send its notifications to the listener."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Collection
from typing import Annotated

import typer

from airbyte_events.cli import options
from airbyte_events.cli.airbyte import open_airbyte
from airbyte_events.cli.api_client import open_listener
from airbyte_events.cli.output import Output, status
from airbyte_events.cli.runner import run
from airbyte_events.cli.webhooks import probe, samples
from airbyte_events.cli.webhooks.backup import plan_uninstall
from airbyte_events.cli.webhooks.plan import URL, Intent, Keep, Workspaces
from airbyte_events.cli.webhooks.workspaces import KINDS, NEEDED, Change, Ours, Workspace, apply, masked, plan_install
from airbyte_events.errors import FeedError, SettingsError

HELP = "Have Airbyte send its notifications to the listener, see whether it does, and undo it."
EPILOG = (
    "The listener's settings say which Airbyte, with which credentials and webhook token.",
    "  airbyte-events webhooks install --url https://events.example.com --dry-run",
    "  airbyte-events webhooks install --url https://events.example.com",
    "  airbyte-events webhooks status",
    "  airbyte-events webhooks test",
    "  airbyte-events webhooks uninstall",
)
_INSTALL_HELP = (
    "Set the notification URLs of Airbyte's workspaces to the listener's, and show what that changes. What stood there "
    "is kept in a file that only you can read, for uninstall, and beside it as the setting FORWARD_URLS, so that Slack "
    "goes on hearing of it. Then a test notification is sent through the URL from here, and looked for in the inbox."
)
_INSTALL_EPILOG = (
    "  airbyte-events webhooks install --workspace ID --url https://events.example.com",
    "Every kind of notification, not syncs alone, and without a question:",
    "  airbyte-events webhooks install --url https://events.example.com --all-kinds --yes",
    "Exit codes: 0 installed and proven, 1 not, 2 wrong usage or settings.",
)
_UNINSTALL_HELP = "Set back what install has changed, wherever it is still as install left it."
_UNINSTALL_EPILOG = (
    "  airbyte-events webhooks uninstall --dry-run",
    "Exit codes: 0 done, 1 failed, 2 wrong usage or settings.",
)
_STATUS_HELP = "Compare what Airbyte's workspaces should send to the listener with what they do."
_STATUS_EPILOG = (
    "  airbyte-events webhooks status --url https://events.example.com",
    "Exit codes: 0 successes and failures go to the listener, 1 they do not, 2 wrong usage or settings.",
)

_LEFT_OPEN = (
    "that shows that the address and the token lead to the listener, not that Airbyte's own machine reaches it: for "
    "that press Test in Airbyte's notification settings, or run a sync"
)


def _kind(text: str) -> str:
    if text not in KINDS:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(KINDS)}")
    return text


_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def install(
    workspace: Workspaces = None,
    url: URL = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            parser=_kind,
            help=f"Set only this kind. May be repeated. [default: {' and '.join(NEEDED)}; others: "
            f"{', '.join(kind for kind in KINDS if kind not in NEEDED)}]",
        ),
    ] = None,
    all_kinds: Annotated[bool, typer.Option("--all-kinds", help="All of them.")] = False,
    keep: Keep = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    instance: options.Instance = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> None:
    meant = Intent.by(config, instance, workspace, url, listener, keep)
    kinds = KINDS if all_kinds else kind or NEEDED
    output = Output(json=json)
    meant.ours.url  # noqa: B018 -- what is missing is told before anything is asked

    async def work() -> int:
        async with open_airbyte(meant.instance) as airbyte:
            workspaces = await meant.found(airbyte)
            changes = list(plan_install(workspaces, kinds, meant.ours))
            if not _agreed(output, meant.ours, changes, dry_run=dry_run, yes=yes):
                return 0 if dry_run else 1
            if changes:
                meant.kept.add(changes, meant.ours)
                # Before anything is changed: what stood there is nowhere else.
                meant.kept.write()
                await apply(airbyte, changes)
        forwards = meant.kept.forwards()
        told = tuple(url.get_secret_value() for url in meant.instance.forward_urls)
        urls = {entry.partition("=")[2] for entry in forwards}
        silent = [url for url in urls if not any(entry.endswith(url) for entry in told)]
        if silent:
            output.say(
                f"nothing is sent any more to {len(silent)} URL{'s' if len(silent) > 1 else ''} that stood there, "
                "unless the listener forwards it, which it does when started with "
                f"AIRBYTE_EVENTS_FORWARD_URLS_FILE={meant.kept.forward_file}"
            )
        if len(urls) > 1 and len(workspaces) > 1:
            output.say("forwarding does not tell workspaces apart: each of these URLs hears of all of them")
        proven, words = await _prove(meant)
        if json:
            output.object(
                {
                    "changes": _data(changes, meant.ours),
                    "kept": str(meant.kept.file) if changes else None,
                    "forward_urls_file": str(meant.kept.forward_file) if forwards else None,
                    "proven": proven,
                    "proof": words,
                }
            )
        else:
            output.line(status("ok" if proven else "failure"), words)
            if proven:
                output.say(_LEFT_OPEN)
        return 0 if proven else 1

    run(work)


def uninstall(
    workspace: Workspaces = None,
    url: URL = None,
    keep: Keep = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    instance: options.Instance = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> None:
    meant = Intent.by(config, instance, workspace, url, None, keep)
    output = Output(json=json)

    async def work() -> int:
        async with open_airbyte(meant.instance) as airbyte:
            changes = list(plan_uninstall(await meant.found(airbyte), meant.ours, meant.kept))
            if not _agreed(output, meant.ours, changes, dry_run=dry_run, yes=yes):
                return 0 if dry_run else 1
            await apply(airbyte, changes)
            if changes:
                meant.kept.forget(changes)
                meant.kept.write()
        if changes and meant.kept.forward_file.exists() and not meant.kept.forwards():
            output.say(
                "what is in this file hears of Airbyte itself again, so take it out of the listener's settings: "
                f"AIRBYTE_EVENTS_FORWARD_URLS_FILE={meant.kept.forward_file}"
            )
        if json:
            output.object({"changes": _data(changes, meant.ours)})
        return 0

    run(work)


def show_status(
    workspace: Workspaces = None,
    url: URL = None,
    keep: Keep = None,
    instance: options.Instance = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> None:
    meant = Intent.by(config, instance, workspace, url, listener, keep)
    output = Output(json=json)

    async def work() -> int:
        async with open_airbyte(meant.instance) as airbyte:
            rows = [_judged(each, kind, meant.ours) for each in await meant.found(airbyte) for kind in KINDS]
        right = all(row["verdict"] != "failure" for row in rows)
        if json:
            output.object({"webhooks": rows, "right": right})
        else:
            output.table(
                ("workspace", "kind", "should go to", "goes to", ""),
                [[r["workspace"], r["kind"], r["should"], r["is"], status(r["verdict"])] for r in rows],
                spare=("should go to",),
            )
        if not right:
            output.say("airbyte-events webhooks install sets it right")
        return 0 if right else 1

    run(work)


def _judged(workspace: Workspace, kind: str, ours: Ours) -> dict[str, str]:
    webhook = workspace.webhooks[kind]
    needed = kind in NEEDED
    right = webhook.enabled and ours.right(webhook.url)
    wrong = needed or (webhook.enabled and ours.has(webhook.url))
    should = "the listener" if ours.base is None else f"{ours.base}/webhooks/{ours.instance}/…"
    return {
        "workspace_id": workspace.id,
        "workspace": workspace.name,
        "kind": kind,
        "should": should if wrong else "anywhere",
        "is": masked(webhook, ours),
        "verdict": "ok" if right else "failure" if wrong else "",
    }


async def _prove(meant: Intent) -> tuple[bool, str]:
    """Send a test through the URL that Airbyte has now, and look for it in the listener's inbox."""
    posted = await probe.post(meant.ours.url, probe.harmless())
    where = f"{meant.ours.base}/webhooks/{meant.name}/…"
    if posted.fault or posted.id is None:
        return False, f"a test sent from here to {where} did not arrive: {posted.fault}"
    arrived = f"a test of {posted.bytes} bytes, sent from here to {where} as Airbyte sends, arrived whole"
    try:
        async with open_listener(meant.listener) as listener:
            kept = await probe.found(listener, posted.id)
    except FeedError as exc:
        return True, f"{arrived}, by its answer (the inbox was not looked at: {exc})"
    if kept is None or kept.get("kind") != "test":
        return False, f"a test sent from here to {where} went to another listener than {meant.listener.url}"
    return True, f"{arrived} and is notification {posted.id} of the listener {meant.listener.url}"


def _agreed(output: Output, ours: Ours, changes: Collection[Change], *, dry_run: bool, yes: bool) -> bool:
    """Show what is to change, and ask."""
    if not changes:
        output.say("nothing has to change in Airbyte")
        return True
    if output.json and dry_run:
        output.object({"changes": _data(changes, ours)})
    elif not output.json:
        output.table(
            ("workspace", "kind", "before", "after"),
            [[each.workspace.name, each.kind, masked(each.before, ours), masked(each.after, ours)] for each in changes],
        )
    if dry_run or yes:
        return not dry_run
    if not sys.stdin.isatty() or output.json:
        raise SettingsError(
            "--yes: not given, and there is nobody to ask; for example --yes, or --dry-run to look first"
        )
    if _confirmed("Change this in Airbyte? [y/N]: "):
        return True
    output.say("nothing was changed")
    return False


def _confirmed(question: str) -> bool:
    # The event loop's way to take Ctrl-C waits for the answer.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.stderr.write(question)
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}
    finally:
        signal.signal(signal.SIGINT, usual)


def _data(changes: Collection[Change], ours: Ours) -> list[dict[str, str]]:
    return [
        {
            "workspace_id": each.workspace.id,
            "workspace": each.workspace.name,
            "kind": each.kind,
            "before": masked(each.before, ours),
            "after": masked(each.after, ours),
        }
        for each in changes
    ]


COMMANDS: tuple[tuple[str, Callable[..., None], str, tuple[str, ...]], ...] = (
    ("install", install, _INSTALL_HELP, _INSTALL_EPILOG),
    ("status", show_status, _STATUS_HELP, _STATUS_EPILOG),
    ("test", samples.send_samples, samples.HELP, samples.EPILOG),
    ("uninstall", uninstall, _UNINSTALL_HELP, _UNINSTALL_EPILOG),
)

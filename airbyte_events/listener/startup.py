"""The startup message on standard output: addresses, store, instances, and what is missing."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence

import anyio

from airbyte_events import __version__
from airbyte_events._utils.printable import shown
from airbyte_events._utils.stdout import say
from airbyte_events._utils.times import utcnow
from airbyte_events.errors import AirbyteError, StoreError
from airbyte_events.jobs import JobSystem
from airbyte_events.listener.settings import Settings
from airbyte_events.store.base import NotificationInbox
from airbyte_events.web.sessions import CODE_SECONDS

RECENT = 1_000
"""The number of latest notifications that are searched for one of an instance."""


def announce(
    settings: Settings, new_tokens: Mapping[str, str], addresses: Sequence[str], code: str | None = None
) -> None:
    """Print what runs and how to reach it. Generated tokens are shown here only.

    :param addresses: of the listener, and of the receiver if that is separate.
    :param code: for one log-in to the dashboard, if it shall be shown.
    """
    webhook = new_tokens.get("webhook", "<webhook token>")
    lines = [f"airbyte-events {__version__} listens on {' and '.join(addresses)}", f"  store      {settings.store}"]
    for name, instance in settings.instances.items():
        lines.append(f"  Airbyte    {instance.airbyte_url} ({name})")
        lines.append(f"  webhooks   {settings.public_url or addresses[-1]}/webhooks/{name}/{webhook}")
    lines.append(f"  {dashboard_line(addresses[0], code)}")
    if "api" in new_tokens:
        lines.append(f"  API token  {new_tokens['api']}")
    if new_tokens:
        lines.append("  These tokens were generated now and are not shown again.")
    elif not (settings.webhook_tokens and settings.api_tokens):
        lines.append(
            "  The tokens were shown when they were generated; "
            "AIRBYTE_EVENTS_WEBHOOK_TOKENS and AIRBYTE_EVENTS_API_TOKENS replace them."
        )
    say(*lines)


def dashboard_line(address: str, code: str | None = None) -> str:
    """Return a line with the dashboard's address on this machine; with a code, the address logs in once."""
    url = re.sub(r"//(0\.0\.0\.0|\[::\])(?=:)", "//127.0.0.1", address)
    if code is None:
        return f"Dashboard: {url}/"
    return f"Dashboard: {url}/#log-in={code} (logs in once, within {CODE_SECONDS / 60:.0f} minutes)"


async def report(
    settings: Settings, systems: Mapping[str, JobSystem], store: NotificationInbox, *, remedy: bool = True
) -> None:
    """Print a line on each instance: whether it can be reached, and whether it has ever sent a webhook.

    :param systems: by instance name; they try once.
    :param remedy: whether to print the command that installs webhooks.
    """
    async with anyio.create_task_group() as tasks:
        for name, system in systems.items():
            tasks.start_soon(_report, settings, name, system, store, remedy)


async def _report(settings: Settings, name: str, system: JobSystem, store: NotificationInbox, remedy: bool) -> None:
    try:
        async for _ in system.list_changed(since=utcnow()):
            break
    except AirbyteError as exc:
        say(shown(f"  {name} can't be reached yet: {exc}; run airbyte-events doctor for details"))
    else:
        say(f"  {name} is reachable and lists its jobs")
    with contextlib.suppress(StoreError):
        if not any(each.instance == name for each in await store.notifications(limit=RECENT)):
            where = settings.public_url or "URL"
            chosen = f" --instance {name}" if len(settings.instances) > 1 else ""
            command = f": airbyte-events webhooks install{chosen} --url {where}" if remedy else ""
            say(f"  {name} has sent no webhook yet, so completions are detected by polling{command}")

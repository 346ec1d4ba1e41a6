"""``airbyte-events serve`` and ``demo``."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from airbyte_events.cli.runner import EXIT_CODES
from airbyte_events.listener.settings import load
from airbyte_events.listener.settings.reference import reference

SERVE_HELP = (
    "Listen for the ends of Airbyte's jobs. Takes its webhooks, asks its API, and tells whoever waits. "
    "Ends on SIGTERM or Ctrl-C, after what is under way; a second one ends it at once."
)
DEMO_HELP = (
    "Show it work, in seconds. Starts a stand-in for Airbyte, a listener and a client of its feed on loopback. "
    "Syncs are run and their ends followed from Airbyte to the client, in milliseconds; nothing is left running."
)
DEMO_EPILOG = ("  airbyte-events demo", "  airbyte-events demo --json | jq .", EXIT_CODES)


def serve(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings in a TOML file. [AIRBYTE_EVENTS_CONFIG]")
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where to listen. [AIRBYTE_EVENTS_HOST, else 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="0 for a free one. [AIRBYTE_EVENTS_PORT, else 8484]")
    ] = None,
) -> None:
    from airbyte_events.listener.process import run as listen

    settings = partial(load, config, host=host, port=port)
    raise typer.Exit(listen(settings(), settings))


def demo(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
) -> None:
    from airbyte_events.cli.demo import run as show

    raise typer.Exit(show(as_json=json))


def serve_epilog() -> list[str]:
    """What there is to say of the settings."""
    lines = [
        "One Airbyte by environment variables:",
        "  AIRBYTE_EVENTS_AIRBYTE_URL=http://localhost:8000 airbyte-events serve",
        "Several, in a file:",
        "  airbyte-events serve --config airbyte-events.toml",
        "Settings, as environment variables or in lower case and without AIRBYTE_EVENTS_ in the file, there with a "
        "table [instances.NAME] for each Airbyte:",
    ]
    for setting in reference():
        files = " (or _FILE)" if setting.secret else ""
        # Links are the documentation's.
        meaning = re.sub(r" \(\[[^]]*\]\([^)]*\)\)", "", setting.meaning).replace("`", "")
        lines.append(f"  {setting.variable}{files}  {meaning}")
    return [*lines, EXIT_CODES]

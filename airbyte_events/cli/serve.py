"""``airbyte-events serve`` and ``demo``."""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import Annotated

from airbyte_events.cli import options
from airbyte_events.cli.options import flag
from airbyte_events.cli.runner import INTERRUPTED, command
from airbyte_events.listener.settings import load
from airbyte_events.listener.settings.reference import reference


def _serve_epilog() -> list[str]:
    """Return examples, and a line for each setting."""
    lines = [
        "One Airbyte by environment variables:",
        "  AIRBYTE_EVENTS_AIRBYTE_URL=http://localhost:8000 airbyte-events serve",
        "Several, in a file:",
        "  airbyte-events serve --config airbyte-events.toml",
        "Settings, as environment variables. In the file they are in lower case, without AIRBYTE_EVENTS_, and each "
        "Airbyte has a table [instances.NAME]:",
    ]
    for setting in reference():
        files = " (or _FILE)" if setting.secret else ""
        # Links are the documentation's.
        meaning = re.sub(r" \(\[[^]]*\]\([^)]*\)\)", "", setting.meaning).replace("`", "")
        lines.append(f"  {setting.variable}{files}  {meaning}")
    return lines


@command(
    "serve",
    *_serve_epilog(),
    codes={0: "stopped by SIGTERM or Ctrl-C", 1: "failed", INTERRUPTED: "Ctrl-C before the listener runs"},
)
def serve(
    config: options.Config = None,
    host: options.Host = None,
    port: options.Port = None,
    show: Annotated[bool, flag("Print the log-in link in a pipe, too.", "--show")] = False,
) -> int:
    """Run the listener. It receives Airbyte's webhooks, polls Airbyte's API, and streams job events to subscribers.
    SIGTERM or Ctrl-C finishes requests in progress and stops it; a second one stops it at once."""
    from airbyte_events.listener.process import run as listen

    settings = partial(load, config, host=host, port=port)
    return listen(settings(), settings, log_in=show or sys.stdout.isatty())


@command(
    "demo",
    "  airbyte-events demo",
    "  airbyte-events demo --keep",
    "  airbyte-events demo --json | jq .",
    codes={0: "done, or --keep stopped by Ctrl-C", 1: "failed"},
)
def demo(
    keep: Annotated[
        bool, flag("Stay up with syncs running and a link to the dashboard, until Ctrl-C.", "--keep")
    ] = False,
    json: Annotated[bool, flag("Write one JSON object a line.", "--json")] = False,
) -> int:
    """Run a demo that takes seconds. It starts a simulated Airbyte, a listener and a client of its feed on loopback,
    runs five syncs, and shows the milliseconds from each completion to the client. Nothing is left running. --keep
    stays up, with syncs running and a link that logs in to the dashboard."""
    from airbyte_events.cli.demo import run as show

    return show(as_json=json, keep=keep)

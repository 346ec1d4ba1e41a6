"""Makes the pictures of messages to chats that the documentation shows: ``python tests/browser/messages.py FOLDER``.

Cards for Teams are rendered by Microsoft's ``adaptivecards``. Slack publishes no renderer: ``slack-blocks-to-jsx``
imitates it. There is none for Google Chat.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from airbyte_events.events import JobError, JobEvent, Signal, SignalKind  # noqa: E402
from airbyte_events.jobs import Connection  # noqa: E402
from airbyte_events.listener.notify.chats import slack, teams  # noqa: E402
from airbyte_events.listener.notify.messages import Completion, Message, message_of  # noqa: E402
from browser.chromium import launch  # noqa: E402
from support.events import CONNECTION, event_of  # noqa: E402

RENDERERS = ROOT / ".ci" / "messages"
AIRBYTE = "https://airbyte.example.com/api/public/v1"
WORKSPACE = "18dccc91-0ab1-4f72-9ed7-0b8fc27c5826"
NAMES = ("Orders", "Customers", "Invoices", "Tickets", "Events", "Prices", "Refunds", "Stock", "Leads", "Visits")

TEAMS = """<!doctype html><meta charset="utf-8"><script src="{script}"></script>
<body><script>
for (const content of {cards}) {{
    const card = new AdaptiveCards.AdaptiveCard();
    card.hostConfig = new AdaptiveCards.HostConfig({{ fontFamily: "system-ui, sans-serif" }});
    const context = new AdaptiveCards.SerializationContext();
    card.parse(content, context);
    if (context.eventCount) throw new Error(context.getEventAt(0).message);
    document.body.appendChild(card.render()).className += " message";
}}
</script>"""
"""Renders cards, and fails on what the renderer does not accept."""

LOOK = """
body { margin: 0; padding: 16px; width: 640px; font-family: system-ui, sans-serif; background: #f0f0f0 }
.message { margin: 0 0 12px !important; background: #fff; border-radius: 6px; padding: 12px !important }
"""


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    shown = [*messages()]
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for name, page in (("slack", as_slack(shown)), ("teams", as_teams(shown))):
            print(shoot(browser, page, folder / f"message-{name}.png"))
        browser.close()


def messages() -> list[Message]:
    """Return one of each kind: a job, a burst of one cause, a signal, and one with a name that tries to be markup."""
    reason = JobError(message="The warehouse is suspended", type="config_error", origin="destination")
    job = replace(failed(1042), job_type="refresh", error=reason, duration_seconds=185.0, records=1204)
    down = JobError(message="Connection to db1.internal:5432 refused", type="system_error", origin="source")
    burst = [completion(replace(failed(1042 + place), error=down), name) for place, name in enumerate(NAMES)]
    since = datetime(2026, 1, 5, 7, tzinfo=UTC)
    stalled = Signal(
        kind=SignalKind.STALLED,
        raised=True,
        job_id=1051,
        since=since,
        message="job 1051 has moved nothing for 45 min (1,204 records, 98 kB)",
    )
    signal = JobEvent.of_signal(
        stalled, instance="default", connection_id=CONNECTION, observed_at=since + timedelta(minutes=45)
    )
    odd = completion(failed(1060), "*Bold* <!channel> :fire: [x](https://example.com)\n<b>two</b>")
    return [
        message_of([completion(job)], 1, various=False),
        message_of(burst, 40, various=False),
        message_of([completion(signal)], 1, various=False),
        message_of([odd], 1, various=False),
    ]


def failed(job_id: int) -> JobEvent:
    return replace(event_of(job_id, "failed"), duration_seconds=None, records=None)


def completion(event: JobEvent, name: str = "Orders to Snowflake") -> Completion:
    connection = Connection(name=name, workspace_id=WORKSPACE, workspace="Data team")
    return Completion(event=event, source=AIRBYTE, connection=connection)


def as_slack(shown: list[Message]) -> str:
    node = shutil.which("node", path=str(Path(sys.executable).parent)) or "node"
    bodies = json.dumps([slack(message) for message in shown])
    done = subprocess.run([node, RENDERERS / "slack.mjs"], input=bodies, capture_output=True, text=True, check=True)
    return done.stdout


def as_teams(shown: list[Message]) -> str:
    cards: list[Any] = [teams(message)["attachments"][0]["content"] for message in shown]
    script = (RENDERERS / "node_modules/adaptivecards/dist/adaptivecards.min.js").as_uri()
    return TEAMS.format(script=script, cards=json.dumps(cards).replace("<", "\\u003c"))


def shoot(browser: Browser, content: str, file: Path) -> Path:
    page = opened(browser, content)
    page.add_style_tag(content=LOOK)
    page.screenshot(path=file, full_page=True)
    page.close()
    return file


def opened(browser: Browser, content: str) -> Page:
    """Open a page, and fail if its script does."""
    page = browser.new_page(viewport={"width": 672, "height": 400}, locale="en-GB", timezone_id="UTC")
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "page.html"
        file.write_text(content)
        page.goto(file.as_uri())
    if faults:
        raise RuntimeError(faults[0])
    return page


if __name__ == "__main__":
    main()

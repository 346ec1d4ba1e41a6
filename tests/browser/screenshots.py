"""Makes the pictures of the dashboard that the documentation shows: ``python tests/browser/screenshots.py FOLDER``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "deploy" / "demo"), str(HERE)]

from chromium import launch  # noqa: E402
from history import History  # noqa: E402
from services import Addresses, Services  # noqa: E402

WIDE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        sync_playwright() as playwright,
        Services(Addresses.choose(), Path(home), connections=6, duration=3600, poll_interval=0.5) as services,
    ):
        history = History(services)
        history.make()
        browser = launch(playwright)
        shoot(browser, services, history, folder)
        browser.close()


def shoot(browser: Browser, services: Services, history: History, folder: Path) -> None:
    """Every page in the light, and some in the dark and on a phone."""
    job = f"jobs/default/{history.ended[2]}"
    connection = f"connections/default/{history.connections[0]}"
    pages = {"overview": "", "jobs": "jobs", "job": job, "connection": connection, "inbox": "inbox", "system": "system"}
    for look, options in {
        "": {"viewport": WIDE},
        "-dark": {"viewport": WIDE, "color_scheme": "dark"},
        "-phone": {"viewport": PHONE},
    }.items():
        context = browser.new_context(base_url=services.addresses.listener_url, locale="en-GB", **options)  # type: ignore[arg-type]
        page = context.new_page()
        page.goto("/")
        page.get_by_label("API token").fill(services.addresses.api_token)
        page.get_by_role("button", name="Log in").click()
        for name, path in pages.items():
            if look and name not in ("overview", "job"):
                continue
            page.goto(f"/{path}")
            expect(page.get_by_role("status").first).to_have_text("live")
            page.wait_for_timeout(800)
            page.screenshot(path=folder / f"{name}{look}.png")
            print(folder / f"{name}{look}.png")
        context.close()


if __name__ == "__main__":
    main()

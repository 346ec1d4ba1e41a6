"""Makes the pictures of the dashboard that the documentation shows: ``python tests/browser/screenshots.py FOLDER``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy" / "demo"), str(ROOT / "tests")]

from services import Addresses, Services  # noqa: E402

from browser.chromium import launch  # noqa: E402
from browser.many import fill  # noqa: E402

WIDE = {"width": 1280, "height": 860}
LOOKS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "": ({"viewport": WIDE}, ()),
    "-dark": ({"viewport": WIDE, "color_scheme": "dark"}, ("overview", "connection")),
    "-phone": ({"viewport": {"width": 390, "height": 844}}, ("overview", "connection")),
}
"""Which pages are shown in which look; none: all of them."""

JOBS = 3_000
BUSY = "00000000-0000-4000-8000-000000000001"
"""A connection with many jobs."""


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        fill(Path(home) / "listener.db", JOBS, running=6)
        with Services(Addresses.choose(), Path(home), connections=6, duration=3600, poll_interval=0.5) as services:
            browser = launch(playwright)
            shoot(browser, services, folder)
            browser.close()


def shoot(browser: Browser, services: Services, folder: Path) -> None:
    """Every page in the light, and some in the dark and on a phone."""
    failed = services.listener.get("/v1/jobs", params={"status": "failed", "limit": 1}).raise_for_status().json()
    [job] = failed["jobs"]
    pages = {
        "overview": "",
        "jobs": "jobs?q=snowflake",
        "job": f"jobs/default/{job['job_id']}",
        "connection": f"connections/default/{BUSY}",
        "inbox": "inbox",
        "system": "system",
    }
    for look, (options, shown) in LOOKS.items():
        context = browser.new_context(base_url=services.addresses.listener_url, locale="en-GB", **options)
        page = context.new_page()
        page.goto("/")
        page.get_by_label("API token").fill(services.addresses.api_token)
        if not look:
            page.screenshot(path=folder / "log-in.png")
            print(folder / "log-in.png")
        page.get_by_role("button", name="Log in").click()
        for name in shown or pages:
            page.goto(f"/{pages[name]}")
            expect(page.get_by_role("status").first).to_have_text("live")
            page.wait_for_timeout(1500)
            page.screenshot(path=folder / f"{name}{look}.png")
            print(folder / f"{name}{look}.png")
        context.close()


if __name__ == "__main__":
    main()

"""The documentation's pages in a browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
WIDER = """() => [...document.querySelectorAll("article table")]
    .filter(table => table.parentElement.scrollWidth > table.parentElement.clientWidth + 1)
    .map(table => table.innerText.slice(0, 40))"""


@pytest.fixture(scope="module")
def pages() -> list[Path]:
    """Of ``make docs``, which is brought up to date."""
    build = [sys.executable, "-m", "sphinx", "--quiet", "-d", "build/doctrees", "docs", "build/docs"]
    subprocess.run(build, cwd=ROOT, check=True)
    built = (ROOT / "build" / "docs").rglob("*.html")
    return sorted(page for page in built if page.name not in ("genindex.html", "py-modindex.html"))


def test_tables_fit_a_screen_and_no_page_scrolls_sideways_on_a_phone(browser: Browser, pages: list[Path]) -> None:
    assert len(pages) > 20
    with browser.new_context() as context:
        page = context.new_page()
        for path in pages:
            page.set_viewport_size({"width": 1440, "height": 900})
            page.goto(path.as_uri())
            assert page.evaluate(WIDER) == [], path.name
            page.set_viewport_size({"width": 390, "height": 844})
            assert page.evaluate("document.scrollingElement.scrollWidth") <= 390, path.name

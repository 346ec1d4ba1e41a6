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
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("docs")
    build = [sys.executable, "-m", "sphinx", "--quiet", "-d", str(folder / "doctrees"), "docs", str(folder / "html")]
    subprocess.run(build, cwd=ROOT, check=True)
    return sorted(
        page for page in (folder / "html").rglob("*.html") if page.name not in ("genindex.html", "py-modindex.html")
    )


def test_tables_fit_a_screen_and_no_page_scrolls_sideways_on_a_phone(browser: Browser, pages: list[Path]) -> None:
    assert len(pages) > 20
    with browser.new_context(viewport={"width": 1440, "height": 900}) as screen:
        page = screen.new_page()
        for path in pages:
            page.goto(path.as_uri())
            assert page.evaluate(WIDER) == [], path.name
    with browser.new_context(viewport={"width": 390, "height": 844}) as phone:
        page = phone.new_page()
        for path in pages:
            page.goto(path.as_uri())
            assert page.evaluate("document.scrollingElement.scrollWidth") <= 390, path.name

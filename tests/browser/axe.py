"""What axe finds on a page of the dashboard, in light and dark."""

from __future__ import annotations

from axe_playwright_python.base import AXE_SCRIPT  # type: ignore[import-untyped]
from playwright.sync_api import Page

_CONTRAST = "color-contrast"

# Contrast takes four fifths of the time, most of it in long tables: one row of each look is enough.
_RUN = """async ({ contrast, options }) => {
    const repeated = [];
    for (const rows of contrast ? document.querySelectorAll("tbody, ul, ol") : []) {
        const seen = new Set();
        for (const row of rows.children) {
            const parts = [row, ...row.querySelectorAll("*")];
            const look = parts.map((part) => `${part.tagName} ${part.getAttribute("class")}`).join();
            if (seen.has(look)) repeated.push(row);
            seen.add(look);
        }
    }
    const { violations } = await axe.run({ include: [document], exclude: repeated }, options);
    return violations.map(({ id, nodes }) => [id, nodes[0].html]);
}"""


def findings(page: Page) -> list[list[str]]:
    """Return the rule and the first element of each finding, however minor. The page is light afterwards."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    short = {"resultTypes": ["violations"]}
    rest = short | {"rules": {_CONTRAST: {"enabled": False}}}
    found: list[list[str]] = page.evaluate(_RUN, {"contrast": False, "options": rest})
    # All that changes are the colours.
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        contrasts = page.evaluate(_RUN, {"contrast": True, "options": short | {"runOnly": [_CONTRAST]}})
        found += [[f"{rule}, {scheme}", html] for rule, html in contrasts]
    return found


def check(page: Page, what: str) -> None:
    """No obstacle of any gravity, and nothing wider than the window."""
    assert findings(page) == [], what
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, what

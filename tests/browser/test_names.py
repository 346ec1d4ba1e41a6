"""Names that people and strangers give to connections: very long ones, markup, emoji, another direction of writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect
from services import Addresses, Services

from browser.axe import check
from browser.many import fill

NAMES = (
    "🚀 Orders → Lake 🧊",
    "<b>bold</b><script>alert(1)</script>",
    "a" * 200,
    "a long name of many words " * 8,
    "\u202eright to left override",
    "x\u0301" * 60,
)
REVERSED = """
() => {
    const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    const found = [];
    for (let text = texts.nextNode(); text; text = texts.nextNode()) {
        if (text.length < 2 || /[\u202e\u0301]/.test(text.data)) continue;
        const [first, second] = [0, 1].map((i) => {
            const range = new Range();
            range.setStart(text, i);
            range.setEnd(text, i + 1);
            return range.getBoundingClientRect();
        });
        if (first.width && second.width && first.top === second.top && second.left < first.left) found.push(text.data);
    }
    return found;
}
"""
"""Texts that read backwards."""


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("names")
    fill(home / "listener.db", 60, running=12, names=NAMES)
    with Services(Addresses.choose(), home, connections=1, duration=3600, poll_interval=0.5) as services:
        yield services


@pytest.mark.parametrize(
    "context",
    [{"viewport": {"width": width, "height": 844}} for width in (1280, 390)],
    indirect=True,
    ids=["wide", "phone"],
)
def test_whatever_a_connection_is_named_the_rest_is_readable(
    page: Page, log_in: Callable[[Page], None], services: Services
) -> None:
    page.goto("/")
    log_in(page)
    [job] = services.listener.get("/v1/jobs", params={"status": "failed", "limit": 1}).raise_for_status().json()["jobs"]
    runs = "https://airflow.example.com/dags/orders/runs/1/tasks"
    receipt = {"instance": "default", "job_id": job["job_id"], "task_url": f"{runs}/{'wait_' * 40}"}
    body = {"receipts": [receipt | {"seconds_ago": 0, "waited_seconds": 60}]}
    services.listener.post("/v1/receipts", json=body).raise_for_status()
    paths = ["/", "/jobs", "/jobs?active=yes", "/connections", f"/jobs/default/{job['job_id']}"]
    for path in [*paths, f"/connections/default/{job['connection_id']}"]:
        page.goto(path)
        expect(page.get_by_role("status").first).to_have_text("live")
        expect(page.get_by_text("loading …")).to_have_count(0)
        expect(page.get_by_role("main").get_by_role("table").first).to_be_visible()
        # No column is pushed out of the window.
        tables = page.locator(".scroll").all()
        assert all(table.evaluate("each => each.scrollWidth <= each.clientWidth") for table in tables), path
        assert page.evaluate(REVERSED) == [], path
        check(page, path)
    expect(page.locator("main b, main script")).to_have_count(0)

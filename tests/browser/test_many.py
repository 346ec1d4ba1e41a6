"""The dashboard at 10,000 jobs: it stays as quick as it is with ten, since no page shows all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page, expect
from services import Addresses, Services

from browser.history import History
from browser.many import CONNECTIONS, fill

JOBS = 10_000
RUNNING = 40
MOST_ELEMENTS = 4_000
STEP = 100


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("many")
    fill(home / "listener.db", JOBS - RUNNING, running=RUNNING)
    with Services(Addresses.choose(), home, connections=2, duration=3600, poll_interval=0.5) as services:
        yield services


@pytest.fixture
def inside(page: Page, log_in: Callable[[Page], None]) -> Page:
    """All jobs, read to the end."""
    page.goto("/jobs")
    log_in(page)
    expect(page.get_by_text(re.compile(r"of 10,0\d\d jobs$"))).to_be_visible(timeout=60_000)
    return page


def rows(page: Page) -> Locator:
    return page.get_by_role("region", name="Jobs").locator("tbody").get_by_role("row")


def elements(page: Page) -> int:
    return int(page.evaluate("document.querySelectorAll('*').length"))


class TestManyJobs:
    def test_a_page_shows_the_newest_and_more_when_asked(self, inside: Page) -> None:
        expect(rows(inside)).to_have_count(STEP)
        assert elements(inside) < MOST_ELEMENTS
        inside.get_by_role("button", name="Show more").click()
        expect(rows(inside)).to_have_count(2 * STEP)

    def test_search_finds_any_of_them(self, inside: Page) -> None:
        search = inside.get_by_label("Job, connection")
        search.fill("1005")  # of the oldest, weeks ago
        expect(rows(inside).first.get_by_role("link", name="1005", exact=True)).to_be_visible()
        search.fill("17")
        expect(inside.get_by_role("link", name="Job 17 of default")).to_be_visible()  # there may be one that is older
        search.fill("wrong password")
        inside.get_by_label("State").select_option("failed")
        expect(rows(inside).first).to_contain_text("failed")
        narrowed = inside.get_by_role("status").filter(has_text=" jobs").inner_text()
        inside.reload()
        expect(inside.get_by_role("status").filter(has_text=narrowed)).to_be_visible()
        search.fill("no such thing")
        expect(inside.get_by_text("No matching jobs.")).to_be_visible()

    def test_going_back_leads_to_the_same_rows_at_the_same_place(self, inside: Page) -> None:
        inside.get_by_role("button", name="Show more").click()
        link = rows(inside).nth(150).get_by_role("link").first
        link.scroll_into_view_if_needed()
        place = inside.evaluate("scrollY")
        assert place > 0
        name = link.inner_text()
        link.click()
        expect(inside.get_by_role("heading", level=1)).to_contain_text(f"Job {name}")
        inside.go_back()
        expect(rows(inside)).to_have_count(2 * STEP)
        inside.wait_for_function("place => scrollY === place", arg=place)
        inside.reload()
        expect(rows(inside)).to_have_count(2 * STEP)
        inside.wait_for_function("place => scrollY === place", arg=place)

    def test_news_touch_what_is_new_and_nothing_else(self, inside: Page, services: Services) -> None:
        """Neither focus nor place move, and an event costs as few changes as it does among ten jobs."""
        name = rows(inside).nth(60).get_by_role("link").first.inner_text()
        link = rows(inside).get_by_role("link", name=name, exact=True)
        link.focus()
        top = link.bounding_box()
        inside.evaluate(
            """() => {
              window.touched = 0;
              const rows = document.querySelector("tbody");
              const count = (changes) => { window.touched += changes.length; };
              new MutationObserver(count).observe(rows, { childList: true });
            }"""
        )
        history = History(services)
        job_id = history.start(history.connections[0])
        expect(rows(inside).get_by_role("link", name=str(job_id), exact=True)).to_be_visible()
        history.end(job_id, status="succeeded")
        row = rows(inside).filter(has=inside.get_by_role("link", name=str(job_id), exact=True))
        expect(row).to_contain_text("succeeded")
        expect(link).to_be_focused()
        assert link.bounding_box() == top
        assert inside.evaluate("window.touched") < 20

    def test_every_page_is_bounded(self, inside: Page) -> None:
        for path, said in (("", "Overview"), ("connections", "Connections"), ("inbox", "Inbox")):
            inside.get_by_role("link", name=said, exact=True).click()
            expect(inside.get_by_role("heading", level=1)).to_have_text(said)
            expect(inside.locator("main").get_by_role("row").nth(10)).to_be_visible()
            assert elements(inside) < MOST_ELEMENTS, path
        inside.get_by_role("link", name="Connections", exact=True).click()
        expect(inside.get_by_text(re.compile(rf"^1\d\d of 1\d\d connections|^{CONNECTIONS} of"))).to_be_visible()
        inside.get_by_label("Connection, source").fill("stripe redshift 32")
        expect(inside.get_by_role("region", name="Connections").locator("tbody").get_by_role("row")).to_have_count(1)
        inside.get_by_role("link", name="Stripe to Redshift 32").click()
        expect(inside.get_by_role("img", name=re.compile("Durations of"))).to_be_visible()
        assert elements(inside) < MOST_ELEMENTS

    def test_what_was_read_of_the_inbox_stays(self, page: Page, log_in: Callable[[Page], None]) -> None:
        page.goto("/inbox")
        log_in(page)
        notifications = page.get_by_role("region", name="Notifications").locator("tbody").get_by_role("row")
        expect(notifications).to_have_count(STEP)
        page.get_by_role("button", name="Show more").click()
        expect(notifications).to_have_count(2 * STEP)
        with page.expect_response(re.compile("/v1/notifications")):
            pass  # it is read anew by itself
        expect(notifications).to_have_count(2 * STEP)

    def test_a_filter_of_the_inbox_looks_beyond_what_is_shown(self, page: Page, log_in: Callable[[Page], None]) -> None:
        page.goto("/inbox?outcome=unconfirmed")
        log_in(page)
        notifications = page.get_by_role("region", name="Notifications").locator("tbody").get_by_role("row")
        expect(notifications.nth(10)).to_contain_text("contradicted by the API")
        page.goto("/inbox?job=1005")
        expect(notifications).to_have_count(1)

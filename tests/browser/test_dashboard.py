"""The dashboard, used as people do."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_core_python.sync_playwright import Axe  # type: ignore[import-untyped]
from history import REASON, History
from playwright.sync_api import BrowserContext, Page, expect
from services import Services

PAGES = ("/", "/jobs", "/connections", "/inbox", "/forwarding", "/system")


class TestLogIn:
    def test_a_wrong_token_is_refused_and_the_right_one_opens(
        self, page: Page, log_in: Callable[[Page], None], history: History
    ) -> None:
        page.goto("/")
        page.get_by_label("API token").fill("not-the-token-not-the-token")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("none of the listener")
        log_in(page)
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()

    def test_scripts_cannot_read_the_session_and_the_token_is_kept_nowhere(
        self, inside: Page, services: Services, context: BrowserContext
    ) -> None:
        [cookie] = context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert services.addresses.api_token not in cookie["value"]
        assert inside.evaluate("document.cookie") == ""
        assert inside.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])") == "[{},{}]"

    def test_logging_out_ends_it(self, inside: Page) -> None:
        inside.get_by_role("button", name="Log out").click()
        expect(inside.get_by_label("API token")).to_be_visible()
        inside.goto("/jobs")
        expect(inside.get_by_label("API token")).to_be_visible()

    def test_a_link_to_a_job_survives_the_log_in(
        self, page: Page, log_in: Callable[[Page], None], history: History
    ) -> None:
        page.goto(f"/jobs/default/{history.ended[0]}")
        log_in(page)
        expect(page.get_by_role("heading", level=1)).to_contain_text(f"Job {history.ended[0]}")

    def test_a_page_of_another_site_can_do_nothing(self, inside: Page, services: Services) -> None:
        """Not even with the browser's cookie: what changes something wants a header that such a page can't send."""
        answer = inside.evaluate("fetch('/v1/notifications/1/replay', {method: 'POST'}).then((told) => told.status)")
        assert answer in (401, 403)
        headers = inside.request.get("/v1/jobs").headers
        assert not [name for name in headers if name.startswith("access-control")]


class TestLive:
    def test_a_job_is_shown_as_it_runs_and_ends(self, inside: Page, history: History) -> None:
        job_id = history.start(history.connections[5])
        running = inside.get_by_role("region", name="Running jobs")
        expect(running.get_by_role("link", name=str(job_id), exact=True)).to_be_visible()
        history.end(job_id, status="succeeded", records=77)
        expect(running.get_by_role("link", name=str(job_id), exact=True)).to_have_count(0)
        ends = inside.get_by_role("region", name="Latest ends")
        expect(ends.get_by_role("row", name=re.compile(rf"^{job_id} .*succeeded .* 77 .* push after"))).to_be_visible()

    def test_failures_say_why(self, inside: Page) -> None:
        expect(inside.get_by_role("region", name="Failures").get_by_text(REASON).first).to_be_visible()

    def test_it_goes_on_after_the_listener_was_restarted(
        self, inside: Page, history: History, services: Services
    ) -> None:
        services.kill_listener()
        expect(inside.get_by_role("status").first).to_have_text("reconnecting")
        services.restart_listener()
        expect(inside.get_by_role("status").first).to_have_text("live", timeout=30_000)
        job_id = history.start(history.connections[5])
        running = inside.get_by_role("region", name="Running jobs")
        expect(running.get_by_role("link", name=str(job_id), exact=True)).to_be_visible()
        history.end(job_id, status="succeeded")


class TestJobs:
    def test_filters_and_search_are_in_the_address(self, inside: Page) -> None:
        inside.get_by_role("link", name="Jobs", exact=True).click()
        inside.get_by_label("State").select_option("failed")
        rows = inside.get_by_role("region", name="Jobs").get_by_role("row")
        expect(rows).to_have_count(1 + 3)
        inside.get_by_label("Job, connection").fill("wrong password")
        expect(inside).to_have_url(re.compile(r"/jobs\?q=wrong\+password&status=failed$"))
        expect(rows).to_have_count(1 + 3)
        inside.reload()
        expect(rows).to_have_count(1 + 3)
        inside.get_by_label("Job, connection").fill("no such thing")
        expect(inside.get_by_text("No job is like that.")).to_be_visible()

    def test_a_job_tells_where_each_piece_of_knowledge_came_from(self, inside: Page, history: History) -> None:
        inside.goto(f"/jobs/default/{history.ended[2]}")
        expect(inside.get_by_text(REASON)).to_be_visible()
        events = inside.get_by_role("region", name="History").get_by_role("listitem")
        expect(events.last).to_contain_text("Webhook")
        expect(inside.get_by_text("the API confirmed it")).to_be_visible()

    def test_an_unknown_job_is_said_to_be_so(self, inside: Page) -> None:
        inside.goto("/jobs/default/987654")
        expect(inside.get_by_text("nothing is known of job default/987654")).to_be_visible()

    def test_a_connection_has_plots_and_its_jobs(self, inside: Page) -> None:
        inside.get_by_role("link", name="Connections").click()
        inside.get_by_role("region", name="Connections").get_by_role("link").first.click()
        expect(inside.get_by_role("img", name=re.compile("How long .* jobs took"))).to_be_visible()
        expect(inside.get_by_role("img", name=re.compile("Records that"))).to_be_visible()
        assert inside.locator("svg circle, svg path").count() >= 3


class TestInbox:
    def test_a_notification_is_confirmed_again(self, inside: Page) -> None:
        inside.get_by_role("link", name="Inbox").click()
        button = inside.get_by_role("button", name=re.compile("Confirm notification")).first
        button.click()
        expect(inside.get_by_role("region", name="Notifications").get_by_text("confirmed").first).to_be_visible()

    def test_nothing_is_forwarded_here(self, inside: Page) -> None:
        inside.get_by_role("link", name="Forwarding").click()
        expect(inside.get_by_text("Nothing is forwarded like that.")).to_be_visible()

    def test_the_system_page_tells_who_looks_and_how_large_the_store_is(self, inside: Page) -> None:
        inside.get_by_role("link", name="System").click()
        expect(inside.get_by_text("here, since")).to_be_visible()
        expect(inside.get_by_role("heading", name="Airbyte default")).to_be_visible()


class TestEverybody:
    @pytest.mark.parametrize("context", [{}, {"color_scheme": "dark"}], indirect=True, ids=["light", "dark"])
    def test_a_screen_reader_meets_nothing_serious(self, inside: Page, history: History) -> None:
        for path in (*PAGES, f"/jobs/default/{history.ended[2]}"):
            inside.goto(path)
            expect(inside.get_by_role("heading", level=1)).to_be_visible()
            inside.wait_for_timeout(400)
            found = Axe().run(inside)["violations"]
            serious = [
                (each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")
            ]
            assert serious == [], path

    @pytest.mark.parametrize("context", [{"viewport": {"width": 390, "height": 844}}], indirect=True, ids=["phone"])
    def test_nothing_is_wider_than_a_phone(self, inside: Page, history: History) -> None:
        for path in (*PAGES, f"/jobs/default/{history.ended[2]}"):
            inside.goto(path)
            expect(inside.get_by_role("heading", level=1)).to_be_visible()
            assert inside.evaluate("document.documentElement.scrollWidth") <= 390, path

    def test_the_keyboard_is_enough(self, inside: Page) -> None:
        inside.reload()
        expect(inside.get_by_role("heading", name="Overview")).to_be_visible()
        inside.keyboard.press("Tab")
        expect(inside.get_by_role("link", name="Skip to the content")).to_be_focused()
        for _ in range(3):
            inside.keyboard.press("Tab")
        expect(inside.get_by_role("link", name="Jobs", exact=True)).to_be_focused()
        inside.keyboard.press("Enter")
        expect(inside.get_by_role("heading", level=1)).to_have_text("Jobs")

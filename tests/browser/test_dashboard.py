"""The dashboard, used as people do."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from services import Services

from browser.axe import check, findings
from browser.history import REASON, History

PAGES = ("/", "/jobs", "/connections", "/inbox", "/forwarding", "/system")
PHONE = {"width": 375, "height": 812}
WIDE = {"width": 1440, "height": 900}


class TestLogIn:
    def test_a_wrong_token_is_refused_and_the_right_one_opens(
        self, page: Page, log_in: Callable[[Page], None], history: History
    ) -> None:
        page.goto("/")
        page.get_by_label("API token").fill("not-the-token-not-the-token")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("not one of the listener")
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
        ends = inside.get_by_role("region", name="Recent jobs")
        expect(
            ends.get_by_role("row", name=re.compile(rf"^{job_id} .*succeeded .* 77 .*webhook within"))
        ).to_be_visible()

    def test_what_is_late_comes_first(self, inside: Page) -> None:
        late = {
            "instance": "default",
            "connection_id": "c",
            "job_id": None,
            "signal": "overdue",
            "message": "no sync <b>has</b> succeeded",
            "observed_at": "2026-01-01T00:00:00Z",
        }
        inside.route("**/v1/signals*", lambda route: route.fulfill(json={"signals": [late], "next": None}))
        inside.goto("/")
        first = inside.locator("main section").first
        expect(first.get_by_role("heading", name="Late and stalled")).to_be_visible()
        expect(first.get_by_text("no sync <b>has</b> succeeded")).to_be_visible()

    def test_a_running_jobs_progress_is_shown_with_what_is_usual(self, inside: Page, history: History) -> None:
        expect(inside.get_by_label(f"Job {history.running[0]}: volume so far of usual volume")).to_be_visible()
        inside.goto(f"/jobs/default/{history.running[0]}")
        expect(inside.get_by_text(re.compile(r"^[\d,]+ records of usual [\d,]+$"))).to_be_visible()
        expect(inside.get_by_role("region", name="Streams", exact=True).get_by_text("public.orders")).to_be_visible()

    def test_the_time_since_the_webhook_is_shown_where_airbyte_has_whole_seconds(
        self, inside: Page, history: History, services: Services
    ) -> None:
        jobs = services.listener.get("/v1/jobs", params={"terminal": "true"}).raise_for_status().json()["jobs"]
        job_id = next(job["job_id"] for job in jobs if job["origin"] == "webhook")
        tile = inside.locator(".tiles > div", has_text="Published after webhook")
        expect(tile.locator("dd")).to_have_text(re.compile(r"^\d+ ms"))
        inside.goto(f"/jobs/default/{job_id}")
        expect(inside.get_by_text(re.compile(r"^published \d+ ms after the webhook arrived$"))).to_be_visible()
        expect(inside.get_by_text(re.compile(r"^webhook within \d+ s$"))).to_be_visible()

    def test_it_says_how_fresh_it_is(self, inside: Page) -> None:
        expect(inside.locator("header").get_by_text(re.compile(r"^polled (now|\d+ s ago)$"))).to_be_visible()

    def test_failures_say_why(self, inside: Page) -> None:
        expect(inside.get_by_role("region", name="Failures, 24 h").get_by_text(REASON).first).to_be_visible()

    def test_it_goes_on_after_the_listener_was_restarted(
        self, inside: Page, history: History, services: Services
    ) -> None:
        banner = inside.get_by_role("alert").filter(has_text=re.compile(r"All numbers are as of \d\d:\d\d:\d\d\.$"))
        ink = "getComputedStyle(document.querySelector('main')).color"
        bright = inside.evaluate(ink)
        services.kill_listener()
        expect(inside.get_by_role("status").first).to_have_text("reconnecting")
        expect(banner).to_be_visible()
        assert inside.evaluate(ink) != bright
        assert findings(inside) == []
        services.restart_listener()
        expect(inside.get_by_role("status").first).to_have_text("live", timeout=30_000)
        expect(banner).to_be_hidden()
        assert inside.evaluate(ink) == bright
        job_id = history.start(history.connections[5])
        running = inside.get_by_role("region", name="Running jobs")
        expect(running.get_by_role("link", name=str(job_id), exact=True)).to_be_visible()
        history.end(job_id, status="succeeded")

    def test_a_hidden_tab_frees_its_connection_and_misses_nothing(self, inside: Page, history: History) -> None:
        """Browsers have six connections to a host for all of its tabs: a seventh would wait for ever."""
        hide = "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); "
        hide += "document.dispatchEvent(new Event('visibilitychange')); }"
        inside.evaluate(hide, True)
        expect(inside.get_by_role("status").first).to_have_text("paused")
        job_id = history.start(history.connections[5])
        inside.evaluate(hide, False)
        expect(inside.get_by_role("status").first).to_have_text("live")
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
        expect(inside.get_by_text("No matching jobs.")).to_be_visible()

    def test_a_job_tells_where_each_piece_of_knowledge_came_from(self, inside: Page, history: History) -> None:
        inside.goto(f"/jobs/default/{history.ended[2]}")
        expect(inside.get_by_text(REASON)).to_be_visible()
        events = inside.get_by_role("region", name="History").get_by_role("listitem")
        expect(events.last).to_contain_text("confirmed by the API")
        expect(events.nth(-2)).to_contain_text("Webhook received")
        events.nth(-2).get_by_role("link").click()
        inbox = inside.get_by_role("region", name="Notifications").get_by_role("row")
        expect(inbox).to_have_count(1 + 1)

    def test_a_job_links_to_the_task_that_waits_for_it(self, inside: Page, history: History) -> None:
        for job_id in (history.ended[0], history.running[0]):
            inside.goto(f"/jobs/default/{job_id}")
            task = inside.get_by_role("definition").filter(has_text="Task run: orders / sync at airflow.example.com")
            page = f"https://airflow.example.com/dags/orders/runs/{job_id}/tasks/sync"
            expect(task.get_by_role("link")).to_have_attribute("href", page)

    def test_a_link_that_is_none_leaves_the_page_whole(
        self, inside: Page, history: History, services: Services
    ) -> None:
        details = services.listener.get(f"/v1/jobs/default/{history.ended[0]}").raise_for_status().json()
        details["job"]["task_url"] = "https://1.2.3.4.5/dags/orders"
        inside.route("**/v1/jobs/default/*", lambda route: route.fulfill(json=details))
        inside.goto(f"/jobs/default/{history.ended[0]}")
        expect(inside.get_by_role("region", name="History").get_by_role("listitem").last).to_be_visible()
        expect(inside.get_by_text("Task run")).to_have_count(0)

    def test_an_unknown_job_is_said_to_be_so(self, inside: Page) -> None:
        inside.goto("/jobs/default/987654")
        expect(inside.get_by_text("job default/987654 is unknown")).to_be_visible()
        inside.goto("/jobs/default/%E0%A4%A")  # half a letter
        expect(inside.get_by_text("not found")).to_be_visible()

    def test_an_unknown_path_is_a_page(self, inside: Page) -> None:
        for path in ("/nothing", "/jobs/default/1/more", "/jobs/", "/a/b/c"):
            answer = inside.goto(path)
            assert answer is not None
            assert answer.status == 404
            expect(inside.get_by_role("heading", level=1)).to_have_text("Page not found")
            expect(inside.get_by_text(f"There is no page at {path}.")).to_be_visible()
        inside.get_by_role("main").get_by_role("link", name="Jobs").click()
        expect(inside.get_by_role("heading", level=1)).to_have_text("Jobs")

    def test_a_connection_has_plots_and_its_jobs(self, inside: Page) -> None:
        inside.get_by_role("link", name="Connections").click()
        inside.get_by_role("region", name="Connections").get_by_role("link").first.click()
        expect(inside.get_by_role("img", name=re.compile("Durations of .* jobs"))).to_be_visible()
        expect(inside.get_by_role("img", name=re.compile("Records of"))).to_be_visible()
        expect(inside.get_by_role("img", name=re.compile("Results of .* jobs by day"))).to_be_visible()
        assert inside.locator("svg circle, svg path").count() >= 3

    def test_going_back_leads_to_where_one_was(self, inside: Page, history: History) -> None:
        inside.goto("/jobs?status=failed")
        rows = inside.get_by_role("region", name="Jobs").get_by_role("row")
        expect(rows).to_have_count(1 + 3)
        rows.last.get_by_role("link").first.click()
        expect(inside.get_by_role("heading", level=1)).to_contain_text("failed")
        inside.go_back()
        expect(inside.get_by_label("State")).to_have_value("failed")
        expect(rows).to_have_count(1 + 3)
        inside.go_forward()
        expect(inside.get_by_role("heading", level=1)).to_contain_text("failed")

    def test_what_runs_is_told_without_taking_the_focus(self, inside: Page, history: History) -> None:
        inside.goto(f"/jobs/default/{history.running[0]}")
        connection = inside.get_by_role("region", name="Details").get_by_role("link").first
        connection.focus()
        time = inside.get_by_role("definition").filter(has=inside.get_by_label("elapsed of usual time"))
        before = time.inner_text()
        expect(time).not_to_have_text(before)
        expect(connection).to_be_focused()


class TestInbox:
    def test_a_notification_is_confirmed_again(self, inside: Page) -> None:
        inside.get_by_role("link", name="Inbox").click()
        button = inside.get_by_role("button", name=re.compile("Confirm notification")).first
        button.click()
        expect(inside.get_by_role("region", name="Notifications").get_by_text("confirmed").first).to_be_visible()

    def test_what_is_not_confirmed_is_counted_and_found(self, inside: Page, services: Services) -> None:
        for body in ("not JSON", '{"text": "Hello World!"}'):
            services.airbyte.post(services.addresses.webhook_url, content=body)
        webhooks = inside.get_by_role("region", name="Webhooks by workspace")
        inside.reload()
        expect(webhooks.get_by_role("columnheader", name="Not confirmed")).to_be_visible()
        webhooks.get_by_role("link", name="1", exact=True).click()
        expect(inside).to_have_url(re.compile(r"/inbox\?outcome=not_confirmed$"))
        expect(inside.get_by_label("Result").locator("option:checked")).to_have_text("not confirmed for any reason")
        rows = inside.get_by_role("region", name="Notifications").get_by_role("row")
        expect(rows).to_have_count(1 + 1)
        expect(rows.last).to_contain_text("unreadable")

    def test_refused_is_said_of_requests_alone(self, inside: Page) -> None:
        for path in ("/", "/inbox"):
            inside.goto(path)
            expect(inside.get_by_role("table").first).to_be_visible()
            assert "refused" not in (inside.locator("main").text_content() or "").lower()
        inside.goto("/system")
        webhooks = inside.get_by_role("region", name="Webhook responses")
        expect(webhooks.get_by_text("Refused: wrong token, address or name")).to_be_visible()
        expect(webhooks.get_by_text("confirmed")).to_have_count(0)

    def test_nothing_is_forwarded_here(self, inside: Page) -> None:
        inside.get_by_role("link", name="Forwarding").click()
        expect(inside.get_by_text("No matching deliveries.")).to_be_visible()

    def test_the_system_page_tells_who_looks_and_how_large_the_store_is(self, inside: Page) -> None:
        inside.get_by_role("link", name="System").click()
        expect(inside.get_by_text("this listener, since")).to_be_visible()
        leases = inside.get_by_role("region", name="Leases").get_by_role("row")
        expect(leases.filter(has_text="leader for default")).to_contain_text("(this listener)")
        expect(inside.get_by_role("heading", name="Airbyte default")).to_be_visible()


class TestEverybody:
    @pytest.mark.parametrize(
        "context",
        [{"viewport": WIDE}, {"viewport": PHONE}],
        indirect=True,
        ids=["wide", "phone"],
    )
    def test_a_screen_reader_meets_no_obstacle(
        self, page: Page, log_in: Callable[[Page], None], history: History
    ) -> None:
        page.goto("/")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        assert findings(page) == []
        log_in(page)
        others = ("/jobs?q=nothing+is+like+that", "/jobs?since=24h&sort=failures", "/jobs/default/987654", "/nothing")
        for path in (*PAGES, *history.pages, *others):
            page.goto(path)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            expect(page.get_by_role("status").first).to_have_text("live")
            read = re.compile(r"^As of|of \d+ (jobs|connections)|is unknown$|^There is no page|^Airbyte default · ")
            expect(page.get_by_role("main").get_by_text(read).first).to_be_visible()
            expect(page.get_by_text("loading …")).to_have_count(0)
            check(page, path)

    @pytest.mark.parametrize(
        "context",
        [{"viewport": {"width": 320, "height": 256}}],
        indirect=True,
        ids=["zoomed"],
    )
    def test_nothing_is_wider_than_the_window(self, inside: Page, history: History) -> None:
        """A window of 1280 by 1024 that is zoomed to 400 % has 320 by 256 of its pixels."""
        for path in (*PAGES, *history.pages):
            inside.goto(path)
            expect(inside.get_by_role("heading", level=1)).to_be_visible()
            assert inside.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path

    @pytest.mark.parametrize("context", [{"viewport": PHONE}], indirect=True, ids=["phone"])
    def test_a_phone_shows_as_much_and_it_is_still_a_table(self, inside: Page) -> None:
        ends = inside.get_by_role("table", name="Recent jobs")
        row = ends.get_by_role("row").nth(1)
        expect(row.get_by_role("cell")).to_have_count(ends.get_by_role("columnheader").count())
        for cell in row.get_by_role("cell").all():
            expect(cell).to_be_visible()

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

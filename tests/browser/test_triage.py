"""Finding what went wrong: failures by cause, filters, order, export."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from services import Addresses, Services

from airbyte_events._utils.times import utcnow
from browser.axe import check
from browser.history import History
from browser.many import fill

JOBS = 600
CAUSE = "Table orders: timeout after … ms in job …"
FORMULA = '=HYPERLINK("https://evil.example.com","<img src=x onerror=alert(1)>")'


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("triage")
    fill(home / "listener.db", JOBS, running=5)
    with Services(Addresses.choose(), home, connections=3, duration=3600, poll_interval=0.5) as services:
        history = History(services)
        messages = [
            "Table orders: timeout after 3000 ms in job 0a1b2c3d-0a1b-4c2d-8e3f-0a1b2c3d4e5f",
            "Table orders: timeout after 12,500 ms in job 7",
            FORMULA,
        ]
        for connection, message in zip(history.connections, messages, strict=True):
            error = {"message": message, "type": "system_error", "origin": "source"}
            history.end(history.start(connection), status="failed", error=error)
        yield services


@pytest.fixture
def jobs(page: Page, log_in: Callable[[Page], None]) -> Page:
    """The page of all jobs, read to the end."""
    page.goto("/jobs")
    log_in(page)
    expect(page.get_by_text(re.compile(r"of 608 jobs$"))).to_be_visible()
    return page


def rows(page: Page) -> Locator:
    return page.get_by_role("region", name="Jobs").locator("tbody").get_by_role("row")


def cells(page: Page, title: str) -> list[str]:
    return page.locator(f'td[data-title="{title}"]').all_inner_texts()


class TestFailuresByCause:
    def test_messages_that_differ_in_numbers_are_one_cause(self, jobs: Page) -> None:
        jobs.get_by_role("link", name="Overview").click()
        failures = jobs.get_by_role("region", name="Failures, 24 h").get_by_role("listitem")
        group = failures.filter(has_text=CAUSE)
        expect(group).to_contain_text("2 failures of")
        expect(group).to_contain_text(re.compile(r", last: job \d+, .+ ago"))
        group.get_by_role("link", name="2 failures").click()
        expect(jobs).to_have_url(re.compile(r"/jobs\?since=24h&cause=Table"))
        expect(rows(jobs)).to_have_count(2)
        jobs.reload()
        expect(rows(jobs)).to_have_count(2)
        expect(rows(jobs).first).to_contain_text("timeout after")
        jobs.get_by_role("link", name="Show all causes").click()
        expect(jobs).to_have_url(re.compile(r"/jobs\?since=24h$"))

    def test_the_list_of_jobs_begins_with_the_causes(self, jobs: Page) -> None:
        causes = jobs.get_by_role("region", name="Failures by cause").get_by_role("listitem")
        counts = [
            int(text.split()[0])
            for text in causes.get_by_role("link", name=re.compile("^[0-9]+ failure")).all_inner_texts()
        ]
        assert len(counts) == 5
        assert counts == sorted(counts, reverse=True)
        jobs.get_by_label("State").select_option("succeeded")
        expect(causes).to_have_count(0)


class TestMissedWebhooks:
    def test_have_the_remedy_and_their_jobs_beside_them(self, jobs: Page) -> None:
        jobs.goto("/")
        row = jobs.get_by_role("region", name="Webhooks by workspace").locator("tbody").get_by_role("row").first
        expect(row).to_contain_text("airbyte-events webhooks status")
        row.locator('[data-title="Missed"]').get_by_role("link").click()
        expect(jobs).to_have_url(re.compile(r"/jobs\?since=24h&origin=poll&type=sync$"))
        expect(rows(jobs).first).to_contain_text("poll")


class TestFilters:
    def test_detected_by_poll_and_late(self, jobs: Page) -> None:
        jobs.get_by_label("Detected by").select_option("poll")
        assert all(text.startswith("poll") for text in cells(jobs, "Detected by"))
        polled = rows(jobs).count()
        jobs.get_by_label("Detected late").check()
        expect(jobs).to_have_url(re.compile(r"/jobs\?origin=poll&late=yes$"))
        assert 0 < rows(jobs).count() < polled
        assert all(re.search(r"after [23] min", text) for text in cells(jobs, "Detected by"))
        expect(jobs.locator('td[data-title="Detected by"] .bad')).to_have_count(rows(jobs).count())

    def test_jobs_far_beyond_their_usual_time_are_red(self, jobs: Page) -> None:
        jobs.get_by_label("Far beyond usual time").check()
        expect(jobs).to_have_url(re.compile(r"/jobs\?long=yes$"))
        shown = rows(jobs).count()
        assert 0 < shown < JOBS / 4
        expect(jobs.locator('td[data-title="Duration"] .bad').filter(has_text="usually")).to_have_count(shown)

    def test_a_time_range_is_kept_in_the_address(self, jobs: Page) -> None:
        jobs.get_by_label("Time range").select_option("24h")
        expect(jobs).to_have_url(re.compile(r"/jobs\?since=24h$"))
        expect(jobs.get_by_text(re.compile(r"^3\d\d of 608 jobs$"))).to_be_visible()
        jobs.get_by_label("Time range").select_option("custom")
        jobs.get_by_label("To", exact=True).fill("2000-01-01T00:00")
        expect(jobs.get_by_text("No matching jobs.")).to_be_visible()
        jobs.reload()
        expect(jobs.get_by_label("To", exact=True)).to_have_value("2000-01-01T00:00")
        expect(jobs.get_by_text("No matching jobs.")).to_be_visible()
        jobs.get_by_label("To", exact=True).fill("")
        jobs.get_by_label("From", exact=True).fill("2000-01-01T00:00")
        expect(jobs.get_by_text("608 of 608 jobs")).to_be_visible()

    def test_the_order_is_kept_in_the_address(self, jobs: Page) -> None:
        jobs.get_by_label("Sort by").select_option("failures")
        expect(jobs).to_have_url(re.compile(r"/jobs\?sort=failures$"))
        assert cells(jobs, "State")[0] == "failed"
        assert "succeeded" not in cells(jobs, "State")[: cells(jobs, "State").count("failed")]
        heading = jobs.get_by_role("columnheader", name="Records")
        heading.get_by_role("button").click()
        expect(heading).to_have_attribute("aria-sort", "descending")
        jobs.reload()
        expect(heading).to_have_attribute("aria-sort", "descending")
        expect(jobs.get_by_text("608 of 608 jobs")).to_be_visible()
        records = [int(text.replace(",", "")) for text in cells(jobs, "Records")]
        assert records == sorted(records, reverse=True)
        heading.get_by_role("button").click()
        expect(jobs).to_have_url(re.compile(r"/jobs$"))


class TestWhyLate:
    def test_a_webhook_s_way_is_shown_step_by_step(self, jobs: Page) -> None:
        jobs.get_by_label("Job, connection").fill("hyperlink")
        rows(jobs).first.get_by_role("link").first.click()
        steps = jobs.get_by_role("region", name="Steps").locator("tbody").get_by_role("row")
        expect(steps).to_have_count(4)
        names = jobs.locator('td[data-title="Step"]').all_inner_texts()
        assert names == ["Completed in Airbyte", "Webhook received", "Confirmed by the API", "Published"]
        expect(jobs.get_by_text(re.compile(r"to the publication: within \d+ s\.$"))).to_be_visible()

    def test_a_late_poll_is_named_with_the_remedy(self, jobs: Page) -> None:
        jobs.goto("/jobs?late=yes&type=sync&origin=poll")
        rows(jobs).first.get_by_role("link").first.click()
        way = jobs.get_by_role("region", name="From completion to task")
        expect(way).to_contain_text(
            re.compile(r"to the publication: [23] min.* Longest step: Detected by a poll, [23] min")
        )
        expect(way.get_by_text("airbyte-events webhooks status")).to_be_visible()
        expect(jobs.get_by_role("region", name="Steps").locator("rect")).to_have_count(1)

    def test_a_webhook_that_is_no_longer_stored_was_not_missed(self, jobs: Page) -> None:
        jobs.goto("/jobs?origin=webhook&status=succeeded&type=sync&sort=oldest")
        rows(jobs).first.get_by_role("link").first.click()
        way = jobs.get_by_role("region", name="From completion to task")
        expect(way).to_contain_text("Confirmed by the API")
        expect(jobs.get_by_text("airbyte-events webhooks status")).to_be_hidden()

    def test_the_tasks_that_received_it_follow_the_publication(self, jobs: Page, services: Services) -> None:
        [job] = (
            services.listener.get("/v1/jobs", params={"status": "failed", "limit": 1}).raise_for_status().json()["jobs"]
        )
        jobs.goto(f"/jobs/default/{job['job_id']}")
        way = jobs.get_by_role("region", name="From completion to task")
        expect(way).to_contain_text("No task has reported that it received the completion.")
        runs = "https://airflow.example.com/dags/orders/runs/1/tasks"
        waiting = {"instance": "default", "job_id": job["job_id"], "seconds_ago": 0, "waited_seconds": 3600}
        receipts = [
            waiting | {"task_url": f"{runs}/sync"},
            waiting | {"task_url": f"{runs}/caf%C3%A9/mapped/3"},
            waiting | {"task_url": f"{runs}/again", "waited_seconds": 0},
            waiting | {"task_url": "https://other.example.com/%E0%A4%A"},
        ]
        services.listener.post("/v1/receipts", json={"receipts": receipts}).raise_for_status()
        jobs.reload()
        expect(way.get_by_role("link", name="Task run: orders / sync")).to_have_attribute("href", f"{runs}/sync")
        expect(way.get_by_role("link", name="Task run: orders / café [3]")).to_be_visible()
        expect(way.get_by_role("row").filter(has_text="other.example.com")).to_contain_text("Received by Task run at")
        late = way.get_by_role("row").filter(has_text="orders / again")
        expect(late).to_contain_text("The task began to wait after the publication")
        expect(way).to_contain_text("3 tasks received it, the last one")
        expect(way.get_by_text("No task has reported")).to_be_hidden()
        check(jobs, "the tasks")

    def test_a_receipt_shows_without_a_reload(self, jobs: Page, services: Services) -> None:
        [job] = (
            services.listener.get("/v1/jobs", params={"status": "succeeded", "limit": 1})
            .raise_for_status()
            .json()["jobs"]
        )
        details = services.listener.get(f"/v1/jobs/default/{job['job_id']}").raise_for_status().json()
        details["job"]["observed_at"] = now = utcnow().isoformat()
        details["notification"] = None
        earlier = details["job"].pop("receipts")
        jobs.route("**/v1/jobs/default/*", lambda route: route.fulfill(json=details))
        jobs.goto(f"/jobs/default/{job['job_id']}")
        way = jobs.get_by_role("region", name="From completion to task")
        expect(way.get_by_text("No task has reported")).to_be_visible()
        details["job"]["receipts"] = [{"task_url": None, "waiting_since": job["started_at"], "received_at": now}]
        expect(way).to_contain_text("The task received it")
        expect(way).to_contain_text("Received by a task")
        details["job"]["receipts"] = earlier
        jobs.reload()
        expect(way).to_contain_text("Before the publication: the task polls Airbyte itself.")
        expect(way.get_by_text("The task received it")).to_have_count(0)

    def test_a_job_that_runs_has_no_steps_yet(self, jobs: Page) -> None:
        jobs.goto("/jobs?active=yes")
        rows(jobs).first.get_by_role("link").first.click()
        expect(jobs.get_by_role("region", name="Details")).to_be_visible()
        expect(jobs.get_by_role("region", name="From completion to task")).to_be_hidden()


class TestExport:
    def test_what_matches_is_exported_and_no_formula(self, jobs: Page, tmp_path: Path) -> None:
        jobs.get_by_label("Job, connection").fill("hyperlink")
        expect(rows(jobs)).to_have_count(1)
        expect(jobs.locator("main img")).to_have_count(0)
        with jobs.expect_download() as download:
            jobs.get_by_role("button", name="Export as CSV").click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        assert re.fullmatch(r"airbyte-jobs-\d{4}-\d\d-\d\d\.csv", file.name)
        with file.open(encoding="utf-8-sig", newline="") as lines:
            [job] = csv.DictReader(lines)
        assert job["status"] == "failed"
        assert job["error"] == f"'{FORMULA}"
        assert job["cause"].startswith("'=HYPERLINK")

    def test_all_that_match_are_exported_in_the_order_of_the_list(self, jobs: Page, tmp_path: Path) -> None:
        jobs.get_by_label("Sort by").select_option("oldest")
        with jobs.expect_download() as download:
            jobs.get_by_role("button", name="Export as CSV").click()
        download.value.save_as(tmp_path / "jobs.csv")
        with (tmp_path / "jobs.csv").open(encoding="utf-8-sig", newline="") as lines:
            exported = [job["job_id"] for job in csv.DictReader(lines)]
        assert len(exported) == 608
        assert exported[:100] == cells(jobs, "Job")


@pytest.mark.parametrize(
    "context",
    [{"viewport": {"width": width, "height": 900}} for width in (1440, 390)],
    indirect=True,
    ids=["wide", "phone"],
)
def test_axe_finds_nothing_where_something_is_late_or_missed(jobs: Page) -> None:
    late = "/jobs?late=yes&type=sync&origin=poll"
    jobs.goto(late)
    expect(rows(jobs).first).to_be_visible()
    job = rows(jobs).first.get_by_role("link").first.get_attribute("href")
    for path in ("/", late, "/jobs?long=yes&sort=duration", f"/{job}"):
        jobs.goto(path)
        expect(jobs.get_by_role("status").first).to_have_text("live")
        expect(jobs.locator(".bad:not(:empty)").first).to_be_visible()
        check(jobs, path)


@pytest.mark.parametrize("context", [{"viewport": {"width": 390, "height": 844}}], indirect=True, ids=["phone"])
def test_a_phone_shows_jobs_before_filters(jobs: Page) -> None:
    expect(jobs.get_by_label("State")).to_be_hidden()
    search = jobs.get_by_label("Job, connection").bounding_box()
    first = jobs.get_by_role("region", name="Failures by cause").bounding_box()
    assert search is not None
    assert first is not None
    assert first["y"] < 844 / 2
    jobs.get_by_text("Filters and sorting").click()
    jobs.get_by_label("State").select_option("failed")
    expect(jobs.get_by_text("(1 set)")).to_be_visible()

"""What an operator token may do on the dashboard."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from services import Addresses, Services

from browser.axe import check, findings
from browser.history import History

OPERATOR_TOKEN = "operator-token-0123456789abcdef0"
REASON = "connect to postgres://me:hunter2@db.example.com failed"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("actions")
    settings = {"AIRBYTE_EVENTS_OPERATOR_TOKENS": OPERATOR_TOKEN}
    with Services(
        Addresses.choose(), home, connections=3, duration=3600, poll_interval=0.5, settings=settings
    ) as services:
        yield services


@pytest.fixture(scope="module")
def history(services: Services) -> History:
    return History(services)


def open_job(page: Page, job_id: int, token: str) -> None:
    page.goto(f"/jobs/default/{job_id}")
    page.get_by_label("API token").fill(token)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("region", name="Details")).to_be_visible()


def test_a_sync_is_started_after_a_confirmation(page: Page, history: History) -> None:
    failed = history.start(history.connections[0])
    history.end(failed, status="failed", error={"message": REASON})
    open_job(page, failed, OPERATOR_TOKEN)
    button = page.get_by_role("button", name="Start a sync")
    dialog = page.get_by_role("dialog", name="Start a sync?")
    button.click()
    expect(dialog.get_by_role("button", name="Back")).to_be_focused()
    assert findings(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()
    button.click()
    dialog.get_by_role("button", name="Start the sync").click()
    started = page.get_by_role("status").filter(has_text="Started: job")
    expect(started).to_be_visible()
    started.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(re.compile("pending|running"))


def test_a_job_is_cancelled_after_a_confirmation(page: Page, history: History) -> None:
    job_id = history.start(history.connections[1])
    open_job(page, job_id, OPERATOR_TOKEN)
    page.get_by_role("button", name="Cancel job").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled", timeout=30_000)
    expect(page.get_by_role("button", name="Cancel job")).to_have_count(0)


@pytest.mark.parametrize(
    "context",
    [{"viewport": {"width": 1440, "height": 900}}, {"viewport": {"width": 390, "height": 844}}],
    indirect=True,
    ids=["wide", "phone"],
)
def test_the_webhook_s_body_is_shown_without_secrets(page: Page, history: History) -> None:
    failed = history.start(history.connections[2])
    history.end(failed, status="failed", error={"message": REASON})
    open_job(page, failed, OPERATOR_TOKEN)
    body = page.get_by_role("region", name="Body", exact=True)
    expect(body).to_be_hidden()
    page.get_by_text("Show the body").click()
    expect(body).to_contain_text(f'"jobId": {failed}')
    expect(body).to_contain_text("connect to postgres://***@db.example.com failed")
    expect(body).not_to_contain_text("hunter2")
    check(page, "the body")


def test_an_api_token_sees_neither(page: Page, history: History, services: Services) -> None:
    failed = history.start(history.connections[2])
    history.end(failed, status="failed", error={"message": REASON})
    open_job(page, failed, services.addresses.api_token)
    expect(page.get_by_role("region", name="Steps")).to_be_visible()
    expect(page.get_by_role("button", name="Start a sync")).to_have_count(0)
    expect(page.get_by_text("Show the body")).to_be_hidden()

"""Who is logged in, for how long, and what becomes of the page when that or the listener ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect
from services import Addresses, Services

ENDED = "The session has ended"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the API tokens."""
    return tmp_path_factory.mktemp("tokens") / "api-tokens"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> Iterator[Services]:
    addresses = Addresses.choose()
    tokens.write_text(addresses.api_token)
    settings = {"AIRBYTE_EVENTS_API_TOKENS": "", "AIRBYTE_EVENTS_API_TOKENS_FILE": str(tokens)}
    home = tmp_path_factory.mktemp("sessions")
    with Services(addresses, home, connections=1, duration=3600, poll_interval=0.5, settings=settings) as services:
        yield services


@pytest.fixture
def inside(page: Page, log_in: Callable[[Page], None]) -> Page:
    page.goto("/")
    log_in(page)
    return page


def test_an_empty_store_says_so(inside: Page) -> None:
    for text in ("No running jobs.", "No completed jobs yet.", "No failures in the last 24 h."):
        expect(inside.get_by_text(text)).to_be_visible()


def test_a_session_that_is_over_leads_to_the_log_in_and_back(
    inside: Page, context: BrowserContext, log_in: Callable[[Page], None]
) -> None:
    context.clear_cookies()
    inside.get_by_role("link", name="Inbox").click()
    expect(inside.get_by_role("alert").filter(has_text=ENDED)).to_be_visible()
    log_in(inside)
    expect(inside.get_by_role("heading", level=1)).to_have_text("Inbox")


def test_who_logs_out_in_one_tab_is_out_in_all(
    inside: Page, context: BrowserContext, log_in: Callable[[Page], None]
) -> None:
    other = context.new_page()
    other.goto("/jobs")
    expect(other.get_by_role("heading", level=1)).to_have_text("Jobs")
    inside.get_by_role("button", name="Log out").click()
    for page in (inside, other):
        expect(page.get_by_label("API token")).to_be_visible()
        expect(page.get_by_role("navigation")).to_be_hidden()
    assert context.cookies() == []
    log_in(inside)
    expect(other.get_by_role("heading", level=1)).to_have_text("Jobs")


def test_an_answer_of_a_proxy_does_not_end_the_stream_for_good(page: Page, log_in: Callable[[Page], None]) -> None:
    """Browsers try again where a connection breaks, and give up after an answer that is no stream."""
    answers = iter([502, 503])

    def refuse(route: Route) -> None:
        status = next(answers, None)
        if status is None:
            route.continue_()
        else:
            route.fulfill(status=status, body="bad gateway")

    page.route(re.compile("/v1/events"), refuse)
    page.goto("/")
    log_in(page)
    assert next(answers, None) is None


def test_states_that_cannot_be_read_are_tried_again(page: Page, log_in: Callable[[Page], None]) -> None:
    refused: list[str] = []

    def refuse(route: Route) -> None:
        if len(refused) < 2:
            refused.append(route.request.url)
            route.fulfill(status=503, json={"error": "the event store is unavailable"})
        else:
            route.continue_()

    page.route(re.compile("/v1/jobs"), refuse)
    page.goto("/")
    log_in(page)
    expect(page.get_by_role("alert").filter(has_text="the event store is unavailable")).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text="the event store is unavailable")).to_be_hidden()
    expect(page.get_by_text("loading …")).to_have_count(0)


def test_a_session_ends_with_its_token(inside: Page, services: Services, tokens: Path) -> None:
    """On a page that asks for nothing by itself, too: its stream ends, and is not given again."""
    inside.get_by_role("link", name="Jobs", exact=True).click()
    tokens.write_text("another-token-another-token")
    try:
        expect(inside.get_by_role("alert").filter(has_text=ENDED)).to_be_visible(timeout=90_000)
    finally:
        tokens.write_text(services.addresses.api_token)

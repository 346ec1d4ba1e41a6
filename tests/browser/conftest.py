"""A real headless browser on the dashboard of a real listener, with the simulator behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from services import Addresses, Services

from browser.chromium import launch
from browser.history import History

expect.set_options(timeout=15_000)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("services")
    # Jobs end when a test says so, and looks come often enough to find what is not announced.
    with Services(Addresses.choose(), home, connections=6, duration=3600, poll_interval=0.5) as services:
        yield services


@pytest.fixture(scope="session")
def history(services: Services) -> History:
    """Jobs that were run, and some that run."""
    history = History(services)
    history.make()
    return history


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser, services: Services, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """A window of its own; ``@pytest.mark.parametrize("context", [{...}], indirect=True)`` says of what kind."""
    options: dict[str, Any] = getattr(request, "param", {})
    context = browser.new_context(base_url=services.addresses.listener_url, locale="en-GB", **options)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that must raise no error, and ask no other host for anything."""
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
    asked: set[str] = set()
    page.on("request", lambda request: asked.add("/".join(request.url.split("/")[:3])))
    yield page
    assert errors == []
    assert len(asked) <= 1, f"the page asked {asked}"


LogIn = Callable[[Page], None]


@pytest.fixture
def log_in(services: Services) -> LogIn:
    """Logs in by the form, and waits for the states."""

    def log_in(page: Page) -> None:
        page.get_by_label("API token").fill(services.addresses.api_token)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("status").first).to_have_text("live")

    return log_in


@pytest.fixture
def inside(page: Page, log_in: LogIn, history: History) -> Page:
    """The overview, logged in."""
    page.goto("/")
    log_in(page)
    return page

"""Each page where there is nothing to show, where deliveries fail, and where Airbyte does not respond."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Page, expect
from services import Addresses, Services

from browser.axe import check
from browser.history import History

SIZES = pytest.mark.parametrize(
    "context",
    [{"viewport": {"width": width, "height": 844}} for width in (1440, 390)],
    indirect=True,
    ids=["wide", "phone"],
)


class TestNothingToShow:
    """A listener that has just been set up."""

    @pytest.fixture(scope="class")
    @classmethod
    def services(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
        home = tmp_path_factory.mktemp("nothing")
        with Services(Addresses.choose(), home, connections=0, duration=3600, poll_interval=0.5) as services:
            yield services

    @SIZES
    def test_each_page_says_so(self, page: Page, log_in: Callable[[Page], None]) -> None:
        page.goto("/")
        log_in(page)
        for path, text in (
            ("/", "No completed jobs yet."),
            ("/jobs", "No matching jobs."),
            ("/connections", "No matching connections."),
            ("/connections/default/00000000-0000-4000-8000-000000000000", "No jobs known."),
            ("/inbox", "No matching notifications."),
            ("/forwarding", "No matching deliveries."),
            ("/system", "this listener, since"),
        ):
            page.goto(path)
            expect(page.get_by_role("main").get_by_text(text).first).to_be_visible()
            expect(page.get_by_text("loading …")).to_have_count(0)
            check(page, path)

    @SIZES
    def test_a_signal_is_shown_whatever_its_text_is(self, page: Page, log_in: Callable[[Page], None]) -> None:
        message = "no sync of <b>Orders</b> has succeeded since " + "x" * 300
        late = {"instance": "default", "connection_id": "c", "job_id": None, "signal": "overdue", "message": message}
        late |= {"observed_at": "2026-01-01T00:00:00Z"}
        page.route("**/v1/signals*", lambda route: route.fulfill(json={"signals": [late], "next": None}))
        page.goto("/")
        log_in(page)
        expect(page.get_by_role("main").get_by_text(message)).to_be_visible()
        check(page, "late and stalled")


class Target(BaseHTTPRequestHandler):
    """Responds with the status that its path names."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(int(self.path.strip("/")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class TestDeliveries:
    @pytest.fixture(scope="class")
    @classmethod
    def services(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
        """A sync has failed, and was forwarded to three targets."""
        home = tmp_path_factory.mktemp("deliveries")
        with ThreadingHTTPServer(("127.0.0.1", 0), Target) as target:
            threading.Thread(target=target.serve_forever).start()
            urls = ",".join(f"http://127.0.0.1:{target.server_port}/{status}" for status in (200, 404, 503))
            try:
                with Services(
                    Addresses.choose(),
                    home,
                    connections=1,
                    duration=3600,
                    settings={"AIRBYTE_EVENTS_FORWARD_URLS": urls},
                ) as services:
                    history = History(services)
                    history.end(history.start(history.connections[0]), status="failed")
                    yield services
            finally:
                target.shutdown()

    @SIZES
    def test_each_state_is_shown_and_a_dead_one_can_be_sent_again(
        self, page: Page, log_in: Callable[[Page], None]
    ) -> None:
        page.goto("/forwarding")
        log_in(page)
        rows = page.get_by_role("region", name="Deliveries").locator("tbody").get_by_role("row")
        expect(rows).to_have_count(3)
        for state, text in (("delivered", "–"), ("due", "it responded 503"), ("dead", "it responded 404")):
            row = rows.filter(has=page.locator('[data-title="State"]', has_text=re.compile(f"^{state}$")))
            expect(row).to_contain_text(text)
        check(page, "/forwarding")
        page.get_by_role("button", name="Send delivery").click()
        expect(rows.filter(has_text="it responded 404").filter(has_text="dead")).to_be_visible()
        page.goto("/forwarding?state=dead")
        expect(rows).to_have_count(1)


class TestAirbyteDown:
    @pytest.fixture(scope="class")
    @classmethod
    def services(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
        home = tmp_path_factory.mktemp("down")
        with Services(Addresses.choose(), home, connections=1, duration=3600, poll_interval=0.5) as services:
            history = History(services)
            history.start(history.connections[0])
            services.processes["simulator"].kill()
            yield services

    @SIZES
    def test_what_is_known_stays_and_the_fault_is_on_the_page_system(
        self, page: Page, log_in: Callable[[Page], None]
    ) -> None:
        page.goto("/system")
        log_in(page)
        failed = page.locator("dl.facts div").filter(has_text="Failed polls in a row").locator("dd.bad")
        expect(failed).to_be_visible(timeout=60_000)
        check(page, "/system")
        for path in ("/", "/jobs?active=yes", "/jobs/default/1"):
            page.goto(path)
            expect(page.get_by_role("main").get_by_role("link", name="Connection 1").first).to_be_visible()
            check(page, path)

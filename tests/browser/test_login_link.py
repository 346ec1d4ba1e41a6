"""The link that ``up``, ``serve`` and ``demo --keep`` print logs in once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from support.command import command


@pytest.fixture
def link() -> Iterator[str]:
    """Of a demo that stays up."""
    with subprocess.Popen([*command(), "demo", "--keep", "--json"], stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        yield next(each["dashboard"] for each in map(json.loads, demo.stdout) if "dashboard" in each)
        demo.terminate()


def test_it_logs_in_once_and_leaves_no_code_in_the_address(browser: Browser, link: str) -> None:
    address, _, code = link.partition("#")
    with browser.new_context() as first, browser.new_context() as second:
        page = first.new_page()
        page.goto(link)
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        assert page.url == address
        assert code not in page.content()
        page = second.new_page()
        page.goto(link)
        expect(page.locator("form").get_by_role("alert")).to_contain_text("was used already")
        expect(page.get_by_label("API token")).to_be_visible()
        assert page.url == address

"""What renders messages in chats accepts ours, and shows names and reasons as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser

from airbyte_events.listener.notify.messages import Message
from browser.messages import RENDERERS, as_slack, as_teams, messages, opened

pytestmark = pytest.mark.skipif(
    not (RENDERERS / "node_modules").exists(), reason="NOT CHECKED: make browser installs what renders messages"
)


@pytest.mark.parametrize("render", [as_slack, as_teams])
def test_a_message_reads_as_it_was_written(browser: Browser, render: Callable[[list[Message]], str]) -> None:
    shown = messages()
    page = opened(browser, render(shown))
    text = page.locator("body").inner_text()
    links = {link.inner_text(): link.get_attribute("href") for link in page.get_by_role("link").all()}
    page.close()
    for message in shown:
        assert message.title in text
        for label, value in message.facts:
            assert f"{label}: {value}" in text
        assert {job.text: job.url for job in message.jobs}.items() <= links.items()
    assert "and 30 more" in text
    assert len(links) == sum(len(message.jobs) for message in shown), "nothing else is a link"

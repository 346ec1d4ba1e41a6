"""How a message reads, and that nothing in a name or a reason means anything to a chat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from airbyte_events.events import JobError, JobEvent, Signal, SignalKind
from airbyte_events.jobs import Connection
from airbyte_events.listener.notify.chats import CHATS
from airbyte_events.listener.notify.messages import (
    LONGEST_NAME,
    LONGEST_REASON,
    Completion,
    Message,
    cause_of,
    message_of,
)
from support.events import CONNECTION, event_of

AIRBYTE = "https://airbyte.example.com/api/public/v1"
WORKSPACE = "18dccc91-0ab1-4f72-9ed7-0b8fc27c5826"
PAGE = f"https://airbyte.example.com/workspaces/{WORKSPACE}/connections/{CONNECTION}/timeline?openLogs=true&jobId=7"
HOSTILE = "*a* _b_ ~c~ `d` <!channel> <users/all> <b>&amp; :fire: [x](http://x) \\n @all\r\nline\u2028two \u202egnol 💥"
ONE_LINE = "*a* _b_ ~c~ `d` <!channel> <users/all> <b>&amp; :fire: [x](http://x) \\n @all line two ?gnol 💥"


def failed(reason: str | None = "no such table", **values: Any) -> JobEvent:
    error = None if reason is None else JobError(message=reason, type="config_error", origin="destination")
    return replace(event_of(7, "failed"), error=error, **values)


def completion(event: JobEvent, name: str | None = "Orders", source: str = AIRBYTE) -> Completion:
    return Completion(
        event=event, source=source, connection=Connection(name=name, workspace_id=WORKSPACE, workspace="Data")
    )


def message(name: str = "Orders", reason: str = "no such table") -> Message:
    return message_of([completion(failed(reason), name)], 1, various=False)


class TestReading:
    def test_one_job(self) -> None:
        event = failed(duration_seconds=3723.0, records=1234567, job_type="refresh")
        found = message_of([completion(event)], 1, various=False)
        assert found.title == "Refresh failed: Orders"
        assert found.facts == [
            ("Reason", "no such table (type config_error, origin destination)"),
            ("Duration", "1 h 2 min"),
            ("Records", "1,234,567"),
            ("Workspace", "Data"),
            ("Instance", "default"),
        ]
        assert [(job.text, job.url) for job in found.jobs] == [("Job 7", PAGE)]

    def test_what_is_not_known_is_left_out(self) -> None:
        found = message_of([Completion(event=failed(None, job_type=None), source="http://x/v1")], 1, various=False)
        assert (found.title, found.facts) == (f"Job failed: {CONNECTION}", [("Instance", "default")])
        assert [(job.text, job.url) for job in found.jobs] == [("Job 7", None)]

    def test_several_of_a_cause(self) -> None:
        found = message_of([completion(failed(), "Orders"), completion(failed(), "Items")], 40, various=False)
        assert found.title == "40 jobs failed"
        assert found.facts[0] == ("Reason", "no such table (type config_error, origin destination)")
        assert [job.text for job in found.jobs] == ["Orders: sync 7", "Items: sync 7"]
        assert found.more == 38

    def test_several_of_various_causes(self) -> None:
        found = message_of([completion(failed(), "Orders"), completion(event_of(8), "Items")], 2000, various=True)
        assert (found.title, found.facts) == ("2,000 jobs completed, with various results", [("Instance", "default")])
        assert [job.text for job in found.jobs] == ["Orders: sync 7 failed", "Items: sync 8 succeeded"]

    @pytest.mark.parametrize("various", [False, True])
    def test_one_signal(self, *, various: bool) -> None:
        signal = Signal(kind=SignalKind.STALLED, raised=True, job_id=7, message="no records for 10 min")
        event = replace(event_of(signal.key(CONNECTION)), signal=signal)
        found = message_of([completion(event)], 1, various=various)
        assert found.title == "Job stalled: Orders"
        assert found.facts == [("Message", "no records for 10 min"), ("Workspace", "Data"), ("Instance", "default")]
        assert [(job.text, job.url) for job in found.jobs] == [("Job 7", PAGE)]

    def test_a_link_of_a_webhook_is_not_shown(self) -> None:
        event = failed(url="https://evil.example.com/", names={"connection": "forged"})
        found = message_of([completion(event)], 1, various=False)
        assert "evil" not in str(found)
        assert "forged" not in str(found)

    def test_the_name_of_a_webhook_is_better_than_none(self) -> None:
        event = failed(names={"connection": "Orders"})
        assert message_of([completion(event, None)], 1, various=False).title == "Sync failed: Orders"


class TestCauses:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (
                "Connection to db1.internal:5432 refused, 30 s",
                "connection to db2.internal:5432 refused, 31 s",
            ),
            ("Table 'orders' has no key", "Table 'a longer name' has no key"),
            (f"Connection {CONNECTION} has no source", f"Connection {WORKSPACE} has no source"),
            ("Timeout\n  at line 17", "Timeout\n  at another"),
        ],
    )
    def test_variable_parts_make_no_difference(self, one: str, other: str) -> None:
        assert cause_of(failed(one)) == cause_of(failed(other))

    def test_other_reasons_types_and_states_do(self) -> None:
        events = [
            failed("no such table"),
            failed("access denied"),
            failed(None),
            replace(failed("no such table"), error=JobError(message="no such table", type="system_error")),
            event_of(7, "cancelled"),
            event_of(7),
        ]
        assert len({cause_of(event) for event in events}) == len(events)

    def test_a_reason_of_any_length_is_no_burden(self) -> None:
        assert len(cause_of(failed("'" * 10_000))) < 2 * LONGEST_REASON


def literals(value: Any) -> Iterator[str]:
    """All texts of a body that a chat shows as they are, or as HTML, which is read here."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "textParagraph":
                yield from _html(each["text"])
            elif key in ("text", "title") and isinstance(each, str) and value.get("type") != "message":
                yield each
            else:
                yield from literals(each)
    elif isinstance(value, list):
        for each in value:
            yield from literals(each)


def _html(text: str) -> list[str]:
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag in {"b", "br", "a"}
            assert [name for name, _ in attrs] == (["href"] if tag == "a" else [])

        def handle_data(self, data: str) -> None:
            found.append(data.strip())

    reader = Reader()
    reader.feed(text)
    reader.close()
    return found


@pytest.mark.parametrize("chat", CHATS)
class TestChats:
    def test_nothing_in_a_name_or_reason_has_a_meaning(self, chat: str) -> None:
        body = CHATS[chat](message(HOSTILE, HOSTILE))
        text = list(literals(body.get("blocks", body)))
        assert f"Sync failed: {ONE_LINE}" in text
        assert f"{ONE_LINE} (type config_error, origin destination)" in text
        # Kinds of text that would be read as markup.
        kinds = json.dumps(body)
        assert not any(f'"{kind}"' in kinds for kind in ("mrkdwn", "TextBlock", "emoji", "user", "broadcast"))

    def test_the_notification_of_a_phone_pings_nobody(self, chat: str) -> None:
        body = CHATS[chat](message("<!channel> & <@U1>"))
        if chat == "slack":
            assert body["text"] == "Sync failed: &lt;!channel&gt; &amp; &lt;@U1&gt;"

    def test_it_has_the_link_of_the_job(self, chat: str) -> None:
        body = CHATS[chat](message())
        assert PAGE in json.dumps(body).replace("&amp;", "&")
        assert "Job 7" in "".join(literals(body.get("blocks", body)))

    def test_it_is_of_limited_size(self, chat: str) -> None:
        many = [completion(failed("\N{COLLISION SYMBOL}" * 10_000), "\N{COLLISION SYMBOL}" * 500)] * 10
        body = CHATS[chat](message_of(many, 10_000, various=False))
        # That of Teams is the smallest limit.
        assert len(json.dumps(body, ensure_ascii=False).encode()) < 28_000
        assert LONGEST_NAME < LONGEST_REASON
        assert "and 9,990 more" in json.dumps(body)


def test_teams_gets_an_adaptive_card() -> None:
    (attachment,) = CHATS["teams"](message())["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert (attachment["content"]["type"], attachment["content"]["version"]) == ("AdaptiveCard", "1.4")

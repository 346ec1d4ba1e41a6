"""Webhook bodies: every kind that Airbyte sends, and whatever else may come to a URL that is open to all."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from airbyte_events.airbyte.notification_kinds import NotificationKind
from airbyte_events.airbyte.notifications import Notification, parse
from airbyte_events.errors import NotificationError
from airbyte_events.events import JobError, JobStatus

WORKSPACE = "b510e39b-e9e2-4833-9a3a-963e51d35fb4"
CONNECTION = "64d901a1-2520-4d91-93c8-9df438668ff0"
PAGE = f"https://airbyte.example/workspaces/{WORKSPACE}/connections/{CONNECTION}"

DATA: dict[str, Any] = {
    "workspace": {"id": WORKSPACE, "name": "Workspace1", "url": "https://airbyte.example/workspaces/1"},
    "connection": {"id": CONNECTION, "name": "Connection", "url": PAGE},
    "source": {"id": "c0655b08-1511-4e72-b7da-24c5d54de532", "name": "Source", "url": "https://airbyte.example/s"},
    "destination": {"id": "5621c38f-8048-4abb-85ca-b34ff8d9a298", "name": "Destination", "url": "https://x.example/d"},
    "jobId": 9988,
    "startedAt": "2024-01-01T00:00:00Z",
    "finishedAt": "2024-01-01T01:00:00Z",
    "bytesEmitted": 1000,
    "bytesCommitted": 90,
    "recordsEmitted": 89,
    "recordsCommitted": 45,
    "recordsFilteredOut": 0,
    "bytesFilteredOut": 0,
    "bytesEmittedFormatted": "1000 B",
    "bytesCommittedFormatted": "90 B",
    "success": True,
    "durationInSeconds": 3600,
    "durationFormatted": "1 hours 0 min",
    "errorMessage": None,
    "errorType": None,
    "errorOrigin": None,
}
FAILED = DATA | {
    "success": False,
    "errorMessage": "Something failed",
    "errorType": "config_error",
    "errorOrigin": "destination",
}
QUEUED = DATA | {"success": False, "finishedAt": None, "durationInSeconds": None, "bytesCommitted": 0}

SUCCEEDED_TEXT = (
    f"Your connection Connection from Source to Destination succeeded\nThis was for null\n\n"
    f"You can access its logs here: {PAGE}\n\nJob ID: 9988"
)
FAILED_TEXT = (
    f"Your connection Connection from Source to Destination just failed...\nThis happened with Something failed\n\n"
    f"You can access its logs here: {PAGE}\n\nJob ID: 9988"
)
QUEUED_TEXT = (
    "Your sync for connection 'Connection' is queued and waiting for Data Worker capacity.\n\n"
    f"Source: Source\nDestination: Destination\nConnection URL: {PAGE}\nJob ID: 9988\n"
)
DISABLED_TEXT = (
    "Your connection from Source to Destination was automatically disabled because it failed 20 times "
    "consecutively or has been failing for 14 days in a row.\n\nPlease address the failing issues.\n\n"
    f"Workspace ID: {WORKSPACE}\nConnection ID: {CONNECTION}\n"
)
WARNING_TEXT = DISABLED_TEXT.replace("was automatically disabled", "is scheduled to be automatically disabled")


def body(title: str | None = None, text: str | None = None, data: Any = None) -> bytes:
    document: dict[str, Any] = {}
    if text is not None:
        document["text"] = text
    if title is not None:
        document["blocks"] = [{"type": "section", "text": {"type": "mrkdwn", "text": title}}, {"type": "divider"}]
    if data is not None:
        document["data"] = data
    return json.dumps(document).encode()


def read(*args: Any, **kwargs: Any) -> Notification:
    return parse(body(*args, **kwargs))


class TestKinds:
    def test_success(self) -> None:
        assert read(f"Sync completed: <{PAGE}|Connection>", SUCCEEDED_TEXT, DATA) == Notification(
            kind=NotificationKind.SUCCESS,
            expected_status=JobStatus.SUCCEEDED,
            job_id=9988,
            workspace_id=WORKSPACE,
            connection_id=CONNECTION,
            names={
                "workspace": "Workspace1",
                "connection": "Connection",
                "source": "Source",
                "destination": "Destination",
            },
            url=PAGE,
            started_at=datetime(2024, 1, 1, 0, tzinfo=UTC),
            finished_at=datetime(2024, 1, 1, 1, tzinfo=UTC),
            records=45,
            bytes=90,
            duration_seconds=3600.0,
            error=None,
            success=True,
        )

    def test_failure_tells_type_origin_and_message(self) -> None:
        notification = read(f"Sync failure occurred: <{PAGE}|Connection>", FAILED_TEXT, FAILED)

        assert notification.kind is NotificationKind.FAILURE
        assert notification.error == JobError(message="Something failed", type="config_error", origin="destination")
        assert notification.success is False

    def test_failure_of_a_platform_without_error_type_and_origin(self) -> None:
        data = {name: value for name, value in FAILED.items() if name not in {"errorType", "errorOrigin"}}

        assert read("Sync failure occurred: x", FAILED_TEXT, data).error == JobError(message="Something failed")

    def test_failure_without_any_reason_and_without_end(self) -> None:
        data = DATA | {"success": False, "finishedAt": None}

        notification = read("Sync failure occurred: x", FAILED_TEXT, data)

        assert notification.kind is NotificationKind.FAILURE
        assert notification.error is None

    def test_queued_is_not_failed(self) -> None:
        notification = read(f"Sync queued: <{PAGE}|Connection>", QUEUED_TEXT, QUEUED)

        assert notification.kind is NotificationKind.QUEUED
        assert notification.expected_status is None
        assert notification.success is False
        assert notification.finished_at is None

    @pytest.mark.parametrize("data", [QUEUED, QUEUED | {"finishedAt": "2024-01-01T00:00:00Z"}, FAILED])
    def test_queued_is_not_failed_whatever_its_data(self, data: dict[str, Any]) -> None:
        assert read("[TAG] Sync queued: x", FAILED_TEXT, data).kind is NotificationKind.QUEUED
        assert read(None, QUEUED_TEXT, data).kind is NotificationKind.QUEUED

    @pytest.mark.parametrize("data", [DATA | {"jobId": 10}, FAILED, QUEUED, {}, None, "x"])
    @pytest.mark.parametrize("title", ["Sync completed", "Sync failure occurred", "Sync queued", "Connection disabled"])
    def test_a_test_is_a_test_whatever_it_looks_like(self, title: str, data: Any) -> None:
        notification = read(f"[THIS IS A TEST NOTIFICATION] {title}: <{PAGE}|Connection>", SUCCEEDED_TEXT, data)

        assert notification.kind is NotificationKind.TEST
        assert notification.expected_status is None

    def test_a_test_is_one_behind_or_before_another_tag(self) -> None:
        assert read("[EU] [THIS IS A TEST NOTIFICATION] Sync completed: x", "", DATA).kind is NotificationKind.TEST
        assert read("[THIS IS A TEST NOTIFICATION] [EU] Sync completed: x", "", DATA).kind is NotificationKind.TEST
        assert read(None, "[THIS IS A TEST NOTIFICATION] Sync completed", DATA).kind is NotificationKind.TEST

    def test_a_connection_named_like_a_test_is_none(self) -> None:
        title = f"Sync completed: <{PAGE}|[THIS IS A TEST NOTIFICATION] Sync queued>"

        assert read(title, SUCCEEDED_TEXT, DATA).kind is NotificationKind.SUCCESS

    def test_the_bare_test(self) -> None:
        text = "Hello World! This is a test from Airbyte to try Slack notification settings for sync failures."

        assert read(None, text).kind is NotificationKind.TEST

    def test_a_tag_is_ignored(self) -> None:
        assert read("[My (tag)] Sync completed: x", SUCCEEDED_TEXT, DATA).kind is NotificationKind.SUCCESS
        assert read("[My (tag)] Sync failure occurred: x", FAILED_TEXT, FAILED).kind is NotificationKind.FAILURE

    @pytest.mark.parametrize(
        ("title", "text", "kind"),
        [
            ("Connection disabled", DISABLED_TEXT, NotificationKind.DISABLED),
            ("Warning - repeated connection failures", WARNING_TEXT, NotificationKind.DISABLED_WARNING),
            (None, DISABLED_TEXT, NotificationKind.DISABLED),
            (None, WARNING_TEXT, NotificationKind.DISABLED_WARNING),
        ],
    )
    def test_disabled_and_its_warning_have_no_data(self, title: str | None, text: str, kind: NotificationKind) -> None:
        link = f"{title}: <{PAGE}|A &lt;b&gt; $amp; c>" if title else None

        notification = read(link, text)

        assert notification.kind is kind
        assert notification.job_id is None
        assert notification.expected_status is None
        assert notification.connection_id == CONNECTION
        assert notification.workspace_id == WORKSPACE
        if title:
            assert notification.url == PAGE
            assert notification.names == {"connection": "A <b> & c"}

    @pytest.mark.parametrize(
        "title",
        [
            f"The schema of '<{PAGE}|Connection>' has changed.",
            f"[TAG] The schema of '<{PAGE}|Connection>' has changed.",
            f"Airbyte detected schema changes for '<{PAGE}|Connection>'.",
        ],
    )
    def test_schema_change_has_no_data(self, title: str) -> None:
        notification = read(title, title)

        assert notification.kind is NotificationKind.SCHEMA_CHANGE
        assert notification.connection_id == CONNECTION
        assert notification.names == {"connection": "Connection"}

    def test_schema_change_of_an_old_platform(self) -> None:
        text = "Your source schema has changed for connection ID: 1.\n\nAirbyte has disabled this connection"

        assert read(None, text).kind is NotificationKind.SCHEMA_CHANGE

    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("Your connection c from s to d succeeded", NotificationKind.SUCCESS),
            ("Your connection c from s to d succeeded\nmore", NotificationKind.SUCCESS),
            ("Your connection c from s to d just failed...\nThis happened with x", NotificationKind.FAILURE),
            ("Your connection c from s to d failed", NotificationKind.FAILURE),
            # Names are the users': what they hold decides nothing.
            ("Your connection succeeded from s to failed succeeded\n", NotificationKind.SUCCESS),
            ("Your connection c from s to succeeded just failed...\n", NotificationKind.FAILURE),
            ("Your connection c from s to d is new", NotificationKind.UNKNOWN),
            ("Something else succeeded", NotificationKind.UNKNOWN),
            ("Your connection c from s to d\nsucceeded", NotificationKind.UNKNOWN),
            ("", NotificationKind.UNKNOWN),
        ],
    )
    def test_text_only_as_platforms_before_0_59_send_it(self, text: str, kind: NotificationKind) -> None:
        notification = read(None, text)

        assert notification.kind is kind
        assert notification.job_id is None

    def test_text_only_names_job_and_connection_at_its_end(self) -> None:
        notification = read(None, SUCCEEDED_TEXT)

        assert notification.job_id == 9988
        assert notification.connection_id == CONNECTION
        assert notification.workspace_id == WORKSPACE
        assert notification.url == PAGE
        assert notification.success is None

    def test_a_job_id_within_a_name_is_none(self) -> None:
        assert read(None, "Your connection a\nJob ID: 5\nb from s to d succeeded").job_id is None

    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (DATA, NotificationKind.SUCCESS),
            (FAILED, NotificationKind.FAILURE),
            (QUEUED, NotificationKind.UNKNOWN),
            (FAILED | {"finishedAt": "soon"}, NotificationKind.UNKNOWN),
            (DATA | {"success": None}, NotificationKind.UNKNOWN),
            (DATA | {"success": "true"}, NotificationKind.UNKNOWN),
            ({"jobId": 1}, NotificationKind.UNKNOWN),
        ],
    )
    @pytest.mark.parametrize("title", [None, "Something new: x", ""])
    def test_data_without_a_known_title(self, title: str | None, data: Any, kind: NotificationKind) -> None:
        assert read(title, None, data).kind is kind

    def test_a_title_that_its_data_contradicts_is_unknown(self) -> None:
        assert read("Sync completed: x", None, FAILED).kind is NotificationKind.UNKNOWN
        assert read("Sync failure occurred: x", None, DATA).kind is NotificationKind.UNKNOWN

    def test_blocks_without_data(self) -> None:
        notification = read(f"Sync completed: <{PAGE}|Connection>", SUCCEEDED_TEXT)

        assert notification.kind is NotificationKind.SUCCESS
        assert notification.job_id == 9988
        assert notification.success is None

    @pytest.mark.parametrize("document", [{}, {"blocks": []}, {"text": "Hello"}, {"payload": 1}, {"data": {}}])
    def test_anything_else_is_unknown(self, document: dict[str, Any]) -> None:
        assert parse(json.dumps(document).encode()) == Notification(kind=NotificationKind.UNKNOWN)

    def test_expected_status(self) -> None:
        expected = {kind: kind.status for kind in NotificationKind}

        assert {kind: status for kind, status in expected.items() if status} == {
            NotificationKind.SUCCESS: JobStatus.SUCCEEDED,
            NotificationKind.FAILURE: JobStatus.FAILED,
        }


class TestFields:
    @pytest.mark.parametrize("job_id", [1, 9988, "9988", 2**63 - 1, str(2**63 - 1)])
    def test_a_job_id(self, job_id: Any) -> None:
        assert read("Sync completed: x", None, DATA | {"jobId": job_id}).job_id == int(job_id)

    @pytest.mark.parametrize(
        "job_id",
        [
            True,
            False,
            -1,
            0,
            1.0,
            9988.5,
            2**63,
            10**400,
            "",
            "-1",
            "1.0",
            "x",
            "0x10",
            "١٢",
            "9" * 30,
            None,
            [],
            {},
            [1],
        ],
    )
    def test_no_job_id(self, job_id: Any) -> None:
        assert read("Sync completed: x", None, DATA | {"jobId": job_id}).job_id is None

    def test_a_number_of_ten_thousand_digits(self) -> None:
        document = body("Sync completed: x", None, DATA).replace(b"9988", b"9" * 10_000)

        assert parse(document).job_id is None

    @pytest.mark.parametrize("name", list(DATA))
    @pytest.mark.parametrize("wrong", [None, True, -1, 1.5, 10**400, 1e308, "x", "\0", [], {}, [[]], {"id": {"x": 1}}])
    def test_a_wrong_type_is_unknown_and_harms_no_other_field(self, name: str, wrong: Any) -> None:
        right = read("Sync completed: x", None, DATA)
        notification = read("Sync completed: x", None, DATA | {name: wrong})

        assert notification.kind in {NotificationKind.SUCCESS, NotificationKind.UNKNOWN}
        if name != "jobId":
            assert notification.job_id == 9988
        if name != "recordsCommitted":
            assert notification.records == right.records
        if name != "startedAt":
            assert notification.started_at == right.started_at

    @pytest.mark.parametrize("name", list(DATA))
    def test_a_missing_field_is_unknown(self, name: str) -> None:
        data = {other: value for other, value in DATA.items() if other != name}

        assert read("Sync completed: x", SUCCEEDED_TEXT, data).kind is NotificationKind.SUCCESS

    @pytest.mark.parametrize("wrong", [None, 1, "x", [], {}, [1], [None], [[]], [{}], [{"text": 1}], [{"text": {}}]])
    def test_wrong_blocks(self, wrong: Any) -> None:
        document = {"blocks": wrong, "data": DATA}

        assert parse(json.dumps(document).encode()).kind is NotificationKind.SUCCESS

    def test_the_first_block_may_be_plain(self) -> None:
        document = {"blocks": [{"type": "section", "text": "Sync queued: x"}], "data": QUEUED}

        assert parse(json.dumps(document).encode()).kind is NotificationKind.QUEUED

    @pytest.mark.parametrize(
        "value", ["2024-01-01T00:00Z", "2024-01-01T00:00:00.000000001Z", "2024-01-01T01:00:00+01:00"]
    )
    def test_times_of_any_precision(self, value: str) -> None:
        started_at = read("Sync completed: x", None, DATA | {"startedAt": value}).started_at

        assert started_at == datetime(2024, 1, 1, tzinfo=UTC)

    @pytest.mark.parametrize(
        "url",
        [
            "javascript:alert(1)",
            "data:text/html,x",
            "https://user:hunter2@airbyte.example/connections/1",
            "https://airbyte.example/a b",
            'https://airbyte.example/"onclick=',
            "//airbyte.example/",
            "https://",
            "http://[::1",
            "x" * 100,
        ],
    )
    def test_an_address_that_is_no_page_is_dropped(self, url: str) -> None:
        data = DATA | {"connection": {"id": CONNECTION, "name": "c", "url": url}}

        assert read("Sync completed: x", None, data).url is None

    def test_text_comes_out_fit_to_be_stored(self) -> None:
        document = body("Sync completed: x", None, DATA).replace(b'"Source"', rb'"\u0000a\ud800b\u0000 "')

        assert parse(document).names["source"] == "a?b"

    def test_values_are_frozen(self) -> None:
        with pytest.raises(AttributeError):
            read(None, "").kind = NotificationKind.SUCCESS  # type: ignore[misc]


class TestTextOfOldReleases:
    """Up to 0.63.0 some were JSON but for the quotes and newlines in their text."""

    @pytest.mark.parametrize(
        ("said", "kind", "job_id"),
        [
            (b'{"text":"Your source schema has changed for "a"\n"}', NotificationKind.SCHEMA_CHANGE, None),
            (b' { "text" : "Your connection "a" from b to c succeeded\n\nJob ID: 7" } ', NotificationKind.SUCCESS, 7),
            (b'{"text": "Your connection "a" from b to c just failed...\nJob ID: 7\n"}', NotificationKind.FAILURE, 7),
            (b'{"text": "Something "else"\nJob ID: 7"}', NotificationKind.UNKNOWN, 7),
        ],
    )
    def test_is_read(self, said: bytes, kind: NotificationKind, job_id: int | None) -> None:
        notification = parse(said)
        assert (notification.kind, notification.job_id) == (kind, job_id)

    @pytest.mark.parametrize(
        "said", [b'{"text":"', b'{"text":"a"', b'{"text": "a "b"" } x', b'"text": "a"b"}', b'{"text": a}', b'{"text"}']
    )
    def test_anything_else_is_refused(self, said: bytes) -> None:
        with pytest.raises(NotificationError):
            parse(said)

    def test_which_names_a_job_is_a_reason_to_ask(self) -> None:
        reasons = {kind: Notification(kind=kind, job_id=7).needs_confirmation for kind in NotificationKind}
        assert [kind for kind, reason in reasons.items() if not reason] == [NotificationKind.TEST]
        without = {kind: Notification(kind=kind).needs_confirmation for kind in NotificationKind}
        assert {kind for kind, reason in without.items() if reason} == {
            NotificationKind.SUCCESS,
            NotificationKind.FAILURE,
        }


class TestNoNotification:
    @pytest.mark.parametrize(
        ("data", "fault"),
        [
            (b"", "is empty"),
            (b" \r\n\t", "is empty"),
            (b"hello", "is not JSON"),
            (b"{", "is not JSON"),
            (b'{"text": "x"', "is not JSON"),
            (b"{} {}", "is not JSON"),
            (b"<html></html>", "is not JSON"),
            (b"payload=%7B%7D", "is not JSON"),
            (b'{"data": {"jobId": NaN}}', "NaN is not a JSON number"),
            (b'{"a": -Infinity}', "is not JSON"),
            (b"null", "null instead of an object"),
            (b"[]", "an array instead of an object"),
            (b'"text"', "a string instead of an object"),
            (b"10", "a number instead of an object"),
            (b"1.5", "a number instead of an object"),
            (b"9" * 10_000, "a number instead of an object"),
            (b"true", "true or false instead of an object"),
            (b'{"text": "\xff"}', "is not UTF-8 text"),
            ('{"text": "x"}'.encode("utf-16"), "is not UTF-8 text"),
            (b"\xef\xbb\xbf{}", "is not JSON"),
            (b"[" * 60_000, "is nested too deeply"),
            (b'{"a":' * 12_000, "is nested too deeply"),
        ],
    )
    def test_is_refused_in_one_sentence(self, data: bytes, fault: str) -> None:
        with pytest.raises(NotificationError) as caught:
            parse(data)

        message = str(caught.value)
        assert message.startswith("the notification's body is ")
        assert fault in message
        assert "\n" not in message
        assert len(message) < 120


def test_random_json_never_fails_otherwise() -> None:
    """Seeded: real bodies with values replaced, moved and dropped at random; real bytes with some flipped."""
    for seed in range(3000):
        dice = random.Random(seed)
        title = dice.choice(
            ["Sync completed: x", "Sync queued: x", "[T] x", "", None, "[THIS IS A TEST NOTIFICATION] x"]
        )
        document = json.loads(body(title, dice.choice([SUCCEEDED_TEXT, "", None]), dice.choice([DATA, FAILED, QUEUED])))
        for _ in range(dice.randrange(6)):
            damage(dice, document)
        data = bytearray(json.dumps(document).encode())
        for _ in range(dice.choice([0, 0, 1, 3])):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            notification = parse(bytes(data))
        except NotificationError:
            continue
        assert notification.job_id is None or 1 <= notification.job_id < 2**63
        assert notification.records is None or 0 <= notification.records < 2**63
        assert notification.kind is not NotificationKind.FAILURE or notification.success is not True
        json.dumps([notification.names, notification.url, notification.connection_id]).encode()


def damage(dice: random.Random, document: Any) -> None:
    places: list[tuple[Any, Any]] = []
    pending = [document]
    while pending:
        place = pending.pop()
        if isinstance(place, dict):
            places += [(place, name) for name in place]
            pending += place.values()
        elif isinstance(place, list):
            places += [(place, index) for index in range(len(place))]
            pending += place
    if not places:
        return
    place, name = dice.choice(places)
    other, other_name = dice.choice(places)
    rarities = [None, True, 0, -1, 1e300, 10**30, "", "\0", "\ud800", "[", "] ", [], {}, [[]], other[other_name]]
    place[name] = json.loads(json.dumps(dice.choice(rarities)))


@pytest.mark.parametrize(
    "part",
    [
        "[a] ",
        "http://",
        "\nJob ID: 1",
        "\nConnection ID: 1 ",
        "Your connection  succeeded",
        "<http://a|",
        " ",
        "\\u0000",
    ],
)
def test_no_text_makes_it_slow(part: str) -> None:
    """64 KiB of what the patterns look for, in time that is proportional to it."""
    text = part * (64_000 // len(part)) + "x"
    title = body(text, "Your connection a succeeded" + text, DATA | {"connection": {"name": text, "url": text}})
    started = time.process_time()

    parse(title)

    assert time.process_time() - started < 1.0

"""The values: statuses, times, cursors, filters, and the forms that events take outside."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from typing import Any

import pytest

from airbyte_events._utils.times import format_time, parse_time, utcnow
from airbyte_events.events import (
    FOLLOWED_BY,
    MAX_RECEIPTS,
    Cursor,
    EventFilter,
    JobError,
    JobEvent,
    JobRef,
    JobStatus,
    Origin,
    Signal,
    SignalKind,
    TaskReceipt,
    add_receipts,
    parse_status,
    read_event,
    same_job_type,
)
from airbyte_events.store.reconcile import Verdict, annotate, reconcile, succeed

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
TERMINAL = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}
WRONG: dict[str, tuple[Any, ...]] = {
    "job_id": (None, "x", float("inf"), 0, -1, 2**63, True, "7", 7.0, []),
    "instance": (None, "", 5, "a\0b", "\ud800", {}),
    "status": (None, 5, [], {}),
    "observed_at": (None, "yesterday", 5, "9999-12-31T23:59:59Z", "0001-01-01T00:00Z"),
}
"""What no event has, by field."""


def event(status: JobStatus = JobStatus.RUNNING, job_id: int = 7, **values: Any) -> JobEvent:
    values = {"ref": JobRef("default", job_id), "observed_at": NOON, "origin": Origin.POLL, **values}
    return JobEvent(status=status, **values)


FULL = event(
    JobStatus.FAILED,
    connection_id="c",
    workspace_id="w",
    job_type="sync",
    previous_status=JobStatus.RUNNING,
    started_at=NOON - timedelta(hours=1),
    finished_at=NOON - timedelta(microseconds=1),
    records=0,
    bytes=2**62,
    duration_seconds=0.5,
    error=JobError(message="it broke", type="config_error", origin="source"),
    names={"connection": "Orders → Lake"},
    url="https://airbyte.example.com/x",
    task_url="https://airflow.example.com/dags/d/runs/r/tasks/t",
    receipts=(TaskReceipt(received_at=NOON, waiting_since=NOON - timedelta(hours=1)),),
)


class TestStatus:
    def test_the_table_has_every_status(self) -> None:
        assert set(FOLLOWED_BY) == set(JobStatus)
        assert {status for status in JobStatus if status.terminal} == TERMINAL

    @pytest.mark.parametrize("name", ["unheard_of", "", "SUCCEEDED", "succeeded ", None, 1, True, [], {}])
    def test_a_name_that_is_not_known_is_active(self, name: object) -> None:
        assert parse_status(name) is JobStatus.UNKNOWN
        assert not parse_status(name).terminal

    @pytest.mark.parametrize(("known", "told"), list(product(JobStatus, JobStatus)))
    def test_i2_a_terminal_status_is_absorbed_for_ever(self, known: JobStatus, told: JobStatus) -> None:
        verdict = reconcile(event(known), event(told))
        if known is told:
            assert verdict is Verdict.REPEAT
        elif known in TERMINAL:
            assert verdict is (Verdict.CONTRADICTION if told in TERMINAL else Verdict.REPEAT)
        else:
            assert verdict is Verdict.NEW

    @pytest.mark.parametrize("status", JobStatus)
    def test_whatever_is_told_first_is_new(self, status: JobStatus) -> None:
        assert reconcile(None, event(status)) is Verdict.NEW


class TestSucceedAndAnnotate:
    def test_what_is_not_told_again_stays(self) -> None:
        known = event(
            connection_id="c", workspace_id="w", job_type="sync", started_at=NOON, names={"source": "s"}, url="u"
        )
        cursor = Cursor("ab", 2)
        stored = succeed(known, event(JobStatus.SUCCEEDED, records=3), cursor)
        assert stored == replace(
            known, status=JobStatus.SUCCEEDED, previous_status=JobStatus.RUNNING, records=3, cursor=cursor
        )

    def test_what_stays_is_as_unconfirmed_as_it_was(self) -> None:
        known = event(names={"source": "s"}, url="u", unconfirmed=frozenset({"names", "url"}))
        stored = succeed(known, event(JobStatus.SUCCEEDED, url="v"), Cursor("ab", 2))
        assert (stored.url, stored.unconfirmed) == ("v", frozenset({"names"}))

    def test_annotating_replaces_what_is_unconfirmed(self) -> None:
        known = replace(FULL, unconfirmed=frozenset({"error", "url", "records"}))
        better = JobError(message="a better reason")
        told = annotate(known, event(JobStatus.FAILED, error=better, records=3, unconfirmed=frozenset({"error"})))
        assert (told.error, told.records, told.url) == (better, 3, FULL.url)
        assert told.unconfirmed == {"error", "url"}

    def test_the_first_waiting_task_stays(self) -> None:
        known = event(task_url="https://a.example.com")
        waiting = event(JobStatus.SUCCEEDED, task_url="https://b.example.com", url="u")
        assert annotate(known, waiting) == known
        assert annotate(event(), waiting) == event(task_url="https://b.example.com")
        assert succeed(known, event(JobStatus.SUCCEEDED), Cursor("ab", 2)).task_url == "https://a.example.com"
        other = event(JobStatus.SUCCEEDED, connection_id="other", started_at=NOON)
        assert succeed(replace(known, connection_id="c", started_at=NOON), other, Cursor("ab", 2)).task_url is None

    def test_a_first_event_has_no_previous_status(self) -> None:
        assert succeed(None, FULL, Cursor("ab", 1)).previous_status is None

    def test_annotating_fills_what_is_unknown_and_nothing_else(self) -> None:
        bare = event(JobStatus.FAILED, cursor=Cursor("ab", 1), records=0, names={"source": "mine"})
        told = annotate(bare, replace(FULL, records=5))
        assert (told.error, told.url, told.bytes, told.workspace_id) == (FULL.error, FULL.url, 2**62, "w")
        assert (told.records, told.names, told.cursor) == (0, {"source": "mine"}, bare.cursor)
        assert annotate(told, event(JobStatus.FAILED)) == told


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("2024-01-01T12:00Z", 0),
            ("2024-01-01T12:00:00Z", 0),
            ("2024-01-01 12:00:00", 0),
            ("2024-01-01T12:00:00.5Z", 0.5),
            ("2024-01-01T12:00:00,25z", 0.25),
            ("2024-01-01T12:00:00.123456789Z", 0.123456),
            ("2024-01-01T12:00:00.1234567890123456789Z", 0.123456),
            ("2024-01-01T14:30:00+02:30", 0),
            ("2024-01-01T14:30+0230", 0),
            ("2023-12-31T23:00:00-13:00", 0),
            ("2024-01-02T02:00:00.000001+14:00", 0.000001),
            ("2024-01-01T12:00:00 Z", 0),
        ],
    )
    def test_of_any_precision_and_offset(self, text: str, seconds: float) -> None:
        moment = parse_time(text)
        assert moment == NOON + timedelta(seconds=seconds)
        assert moment.tzinfo is UTC

    def test_none_stays_none(self) -> None:
        assert parse_time(None) is None
        assert format_time(None) is None

    @pytest.mark.parametrize(
        "garbage",
        [
            "",
            "now",
            "2024-01-01",
            "2024-1-1T12:00Z",
            "2024-02-30T12:00Z",
            "2024-01-01T25:00Z",
            "2024-01-01T12:60Z",
            "2024-01-01T12:00:61Z",
            "2024-01-01T12:00:00.Z",
            "2024-01-01T12:00:00+2",
            "2024-01-01T12:00:00+99:00",
            "2024-01-01T12:00:00+02:60",
            "2024-01-01T12:00:00Z\n",
            " 2024-01-01T12:00:00Z",
            "٢٠٢٤-01-01T12:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2200-01-01T00:00:00.000001Z",
            "9999-12-31T23:59:59Z",
            1704110400,
            1.5,
            True,
            [],
            {},
        ],
    )
    def test_garbage_is_refused_in_one_way(self, garbage: object) -> None:
        with pytest.raises(ValueError, match=r"\S"):
            parse_time(garbage)

    def test_are_written_in_utc_and_of_one_width(self) -> None:
        assert format_time(NOON) == "2024-01-01T12:00:00.000000Z"
        east = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))
        assert format_time(east) == format_time(NOON)
        assert len(str(format_time(NOON + timedelta(microseconds=1)))) == len(str(format_time(NOON)))


class TestData:
    @pytest.mark.parametrize("original", [FULL, event(), event(JobStatus.UNKNOWN, previous_status=JobStatus.UNKNOWN)])
    def test_comes_back_from_json(self, original: JobEvent) -> None:
        assert JobEvent.from_data(json.loads(json.dumps(original.data()))) == original

    @pytest.mark.parametrize(
        "field",
        [
            "connection_id",
            "workspace_id",
            "job_type",
            "previous_status",
            "started_at",
            "finished_at",
            "records",
            "bytes",
            "duration_seconds",
            "error",
            "url",
        ],
    )
    def test_every_null_comes_back(self, field: str) -> None:
        partial = replace(FULL, **{field: None})  # type: ignore[arg-type]
        data = partial.data()
        assert data.get(field) is None
        assert JobEvent.from_data(json.loads(json.dumps(data))) == partial

    def test_names_and_url_are_there_only_where_they_are_known(self) -> None:
        assert {"names", "url"}.isdisjoint(event().data())
        assert FULL.data()["names"] == {"connection": "Orders → Lake"}

    def test_has_the_contracts_fields(self) -> None:
        assert list(event().data()) == [
            "instance",
            "job_id",
            "connection_id",
            "workspace_id",
            "job_type",
            "status",
            "previous_status",
            "started_at",
            "finished_at",
            "observed_at",
            "records",
            "bytes",
            "duration_seconds",
            "origin",
            "error",
        ]

    @pytest.mark.parametrize(
        "change",
        [{name: wrong} for name, values in WRONG.items() for wrong in values],
    )
    def test_what_is_no_event_is_a_value_error(self, change: dict[str, Any]) -> None:
        data = {**FULL.data(), **change}
        with pytest.raises(ValueError, match="not a job event"):
            JobEvent.from_data(data)
        assert read_event(data) is None

    @pytest.mark.parametrize("data", [None, [], "text", b"\xff", "[" * 100_000, "{}", "null", "5", 5, "NaN"])
    def test_what_can_not_be_read_is_none(self, data: object) -> None:
        assert read_event(data) is None

    def test_what_can_be_read_is_read_from_text_too(self) -> None:
        assert read_event(json.dumps(FULL.data())) == read_event(FULL.data()) == FULL

    @pytest.mark.parametrize("field", ["instance", "job_id", "status", "observed_at"])
    def test_what_an_event_must_have(self, field: str) -> None:
        with pytest.raises(ValueError, match=field):
            JobEvent.from_data({name: value for name, value in FULL.data().items() if name != field})

    @pytest.mark.parametrize(
        ("field", "wrong"),
        [
            *product(("connection_id", "workspace_id", "job_type", "url"), (5, [], {}, "a\0b", "\ud800")),
            *product(("records", "bytes"), (-1, 0.5, True, "5", 2**63, float("nan"))),
            *product(("duration_seconds",), (-1, float("inf"), float("nan"), "5", True, 2**63 - 1, 10**400, 1e18)),
            *product(
                ("started_at", "finished_at"),
                (5, "soon", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", {}),
            ),
            *product(("error",), ("text", 5, [])),
        ],
    )
    def test_an_optional_value_out_of_range_is_unknown(self, field: str, wrong: Any) -> None:
        assert JobEvent.from_data({**FULL.data(), field: wrong}) == replace(FULL, **{field: None})  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "wrong", [5, "text", [], {"source": 5}, {"connection": "\ud800"}, {"stream": "new"}, {5: "x"}]
    )
    def test_names_that_are_none_are_unknown(self, wrong: Any) -> None:
        assert JobEvent.from_data({**FULL.data(), "names": wrong}) == replace(FULL, names={})

    def test_what_a_newer_version_writes_is_read(self) -> None:
        newer = {
            **FULL.data(),
            "status": "paused",
            "previous_status": "throttled",
            "origin": "kafka",
            "error": {"message": "it broke", "type": "config_error", "origin": "platform", "trace": {"deep": [1]}},
            "names": {"connection": "Orders → Lake", "stream": "orders"},
            "unconfirmed": ["names", "streams", 5, None, {}],
            "streams": [{"name": "orders"}] * 1_000,
            "attempt": {"number": 3},
        }
        assert JobEvent.from_data(newer) == replace(
            FULL,
            status=JobStatus.UNKNOWN,
            previous_status=JobStatus.UNKNOWN,
            origin=Origin.UNKNOWN,
            error=JobError(message="it broke", type="config_error", origin="platform"),
            unconfirmed=frozenset({"names"}),
        )

    def test_without_an_origin_it_is_unknown(self) -> None:
        data = FULL.data()
        del data["origin"]
        assert JobEvent.from_data(data).origin is Origin.UNKNOWN

    def test_what_is_unconfirmed_is_named_only_where_there_is_some(self) -> None:
        assert "unconfirmed" not in FULL.data()
        told = replace(FULL, unconfirmed=frozenset({"url", "error"}))
        assert told.data()["unconfirmed"] == ["error", "url"]
        assert JobEvent.from_data(told.data()) == told

    @pytest.mark.parametrize(
        "url",
        ["javascript:alert(1)", "https://me:hunter2@a.example.com", "/dags/d", "https://", "https://a/ b", 5],
    )
    def test_a_task_has_a_page_that_is_safe_to_show_or_none(self, url: object) -> None:
        assert JobEvent.from_data({**FULL.data(), "task_url": url}) == replace(FULL, task_url=None)

    def test_a_job_keeps_the_first_receipts(self) -> None:
        receipts = [
            TaskReceipt(received_at=NOON + timedelta(seconds=n), waiting_since=NOON, task_url=f"https://a/{n}")
            for n in range(MAX_RECEIPTS + 5)
        ]
        known: tuple[TaskReceipt, ...] = ()
        for receipt in reversed(receipts):
            known = add_receipts(known, [receipt])
        assert known == tuple(receipts[:MAX_RECEIPTS])
        assert event(JobStatus.SUCCEEDED, receipts=known).weight > event(JobStatus.SUCCEEDED).weight

    @pytest.mark.parametrize("receipts", [None, 5, {}, [None, 5, {}, {"received_at": 5, "waiting_since": "soon"}]])
    def test_what_is_no_receipt_is_left_out(self, receipts: object) -> None:
        assert JobEvent.from_data({**FULL.data(), "receipts": receipts}) == replace(FULL, receipts=())

    def test_an_error_reads_as_a_sentence(self) -> None:
        assert str(FULL.error) == "it broke (type config_error, origin source)"
        assert str(JobError(message=None)) == "no message"
        assert str(JobError(message="it broke", stream="public.orders")) == "it broke (stream public.orders)"

    def test_what_only_the_internal_api_knows_of_an_error_is_there_where_it_is_known(self) -> None:
        assert FULL.data()["error"] == {"message": "it broke", "type": "config_error", "origin": "source"}
        told = replace(FULL, error=JobError(message="it broke", retryable=False, stream="public.orders"))
        assert told.data()["error"]["retryable"] is False
        assert JobEvent.from_data(told.data()) == told
        odd = {**told.data(), "error": {"message": "it broke", "retryable": "no", "stream": 7}}
        assert JobEvent.from_data(odd).error == JobError(message="it broke")


class TestSignals:
    @pytest.mark.parametrize("kind", SignalKind)
    @pytest.mark.parametrize("raised", [True, False])
    def test_come_back_as_they_were(self, kind: SignalKind, raised: bool) -> None:
        job_id = 5 if kind.of_job else None
        signal = Signal(kind=kind, raised=raised, job_id=job_id, since=utcnow(), message="late")
        event = JobEvent.of_signal(signal, instance="default", connection_id="C", observed_at=utcnow())
        data = json.loads(json.dumps(event.data()))
        assert JobEvent.from_data(data) == event
        assert event.ref.job_id < 0, "no job has this number"
        # Release 0.1.0, on the same store during an upgrade, can't read it and skips it.
        assert "status" not in data

    def test_are_the_same_whichever_case_an_id_has(self) -> None:
        signal = Signal(kind=SignalKind.OVERDUE, raised=True)
        assert signal.key("AB") == signal.key("ab") != signal.key("b")
        assert signal.key(None) != Signal(kind=SignalKind.FAILING, raised=True).key(None)

    @pytest.mark.parametrize("odd", [None, 7, "late", [], {}])
    def test_other_values_are_none(self, odd: Any) -> None:
        data = {"instance": "default", "signal": "stalled", "state": "raised", "observed_at": "2024-01-01T00:00:00Z"}
        assert read_event(data) is not None
        assert read_event({**data, "since": odd, "job_id": odd, "connection_id": odd, "names": odd}) is not None
        for field in ("instance", "signal", "state", "observed_at"):
            assert read_event({**data, field: odd}) is None or (field, odd) == ("instance", "late")


class TestEnvelope:
    def test_is_a_cloud_event(self) -> None:
        envelope = replace(FULL, cursor=Cursor("ab", 12)).envelope("https://airbyte.example.com")
        data = envelope.pop("data")
        assert envelope == {
            "specversion": "1.0",
            "id": "ab-12",
            "type": "io.airbyte.job.failed",
            "source": "https://airbyte.example.com",
            "subject": "jobs/7",
            "time": "2024-01-01T11:59:59.999999Z",
            "sequence": "000000000000000012",
            "datacontenttype": "application/json",
        }
        assert data == FULL.data()

    def test_of_a_job_without_end_has_the_time_it_was_observed(self) -> None:
        assert event(cursor=Cursor("ab", 1)).envelope("x")["time"] == format_time(NOON)

    @pytest.mark.parametrize("original", [FULL, event()])
    def test_comes_back(self, original: JobEvent) -> None:
        stored = replace(original, cursor=Cursor("00ff", 3))
        assert JobEvent.from_envelope(json.loads(json.dumps(stored.envelope("x")))) == stored

    def test_is_there_once_the_event_is_stored(self) -> None:
        with pytest.raises(ValueError, match="once it is stored"):
            event().envelope("x")

    @pytest.mark.parametrize("wrong", [{}, {"data": {}}, {"id": "ab-1", "data": []}, {"id": 5, "data": {}}])
    def test_what_is_none_is_a_value_error(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"\S"):
            JobEvent.from_envelope(wrong)


class TestCursor:
    @pytest.mark.parametrize("text", ["ab-0", "5f3a9c1e-42", "0-999999999999999999"])
    def test_comes_back(self, text: str) -> None:
        assert str(Cursor.parse(text)) == text

    @pytest.mark.parametrize(
        "text",
        ["", "-", "ab", "ab-", "-1", "ab--1", "ab-01", "AB-1", "ab-1 ", "ab-1\n", "ab-1e3", f"ab-{10**18}", "ab-١"],
    )
    def test_anything_else_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(ValueError, match="5f3a9c1e-42"):
            Cursor.parse(text)


class TestFilter:
    def test_without_criteria_takes_everything(self) -> None:
        assert EventFilter().matches(FULL)
        assert EventFilter().matches(event())

    @pytest.mark.parametrize(
        ("wanted", "matches"),
        [
            (EventFilter(instances=frozenset({"default", "other"})), True),
            (EventFilter(instances=frozenset({"other"})), False),
            (EventFilter(job_ids=frozenset({7, 8})), True),
            (EventFilter(job_ids=frozenset({8})), False),
            (EventFilter(connection_ids=frozenset({"c"})), True),
            (EventFilter(connection_ids=frozenset({"d"})), False),
            (EventFilter(statuses=frozenset({JobStatus.FAILED})), True),
            (EventFilter(statuses=frozenset({JobStatus.RUNNING})), False),
            (EventFilter(terminal=True), True),
            (EventFilter(terminal=False), False),
            (EventFilter(terminal=False, statuses=frozenset({JobStatus.FAILED})), False),
            (EventFilter(job_ids=frozenset({7}), instances=frozenset({"other"})), False),
        ],
    )
    def test_wants_all_criteria_and_any_value_of_each(self, wanted: EventFilter, matches: bool) -> None:
        assert wanted.matches(FULL) is matches

    def test_an_event_without_connection_is_of_none(self) -> None:
        assert not EventFilter(connection_ids=frozenset({"c"})).matches(event())

    def test_knows_when_it_is_for_one_job(self) -> None:
        one = EventFilter(instances=frozenset({"default"}), job_ids=frozenset({7}))
        assert one.only_job == JobRef("default", 7)
        assert EventFilter(job_ids=frozenset({7})).only_job is None
        assert replace(one, job_ids=frozenset({7, 8})).only_job is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("clear", "reset", True),
        ("reset", "clear", True),
        ("sync", "sync", True),
        ("sync", "reset", False),
        ("refresh", "clear", False),
        (None, "sync", False),
        (None, None, False),
    ],
)
def test_a_clear_is_the_reset_that_airbyte_reports_it_as(one: str | None, other: str | None, same: bool) -> None:
    assert same_job_type(one, other) is same

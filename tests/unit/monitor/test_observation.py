"""What a webhook adds to what the API reports, and what it can't."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airbyte_events._utils.times import format_time
from airbyte_events.airbyte.notifications import reread
from airbyte_events.events import JobError, JobEvent, JobRef, JobStatus, Origin
from airbyte_events.monitor.observation import Candidates, Received
from airbyte_events.store.reconcile import annotate
from airbyte_events.store.records import Outcome, StoredNotification

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
END = START + timedelta(minutes=10)
CONNECTION = "5f0c3d52-8f27-4a5e-9f7e-0d3c6a1b2c3d"
AIRBYTE = "https://airbyte.example.com/api/public/v1"
PAGE = f"https://airbyte.example.com/workspaces/5f0c3d52/connections/{CONNECTION}"
REAL = {
    "workspace": {"id": "w", "name": "Team"},
    "connection": {"id": CONNECTION, "name": "orders", "url": PAGE},
    "jobId": 5,
    "startedAt": format_time(START + timedelta(seconds=3)),
    "finishedAt": format_time(END),
    "recordsCommitted": 1300,
    "bytesCommitted": 2600,
    "durationInSeconds": 597,
    "success": False,
    "errorMessage": "no such table",
    "errorType": "config_error",
    "errorOrigin": "destination",
}
EVENT = JobEvent(
    ref=JobRef("default", 5),
    status=JobStatus.FAILED,
    observed_at=END + timedelta(seconds=1),
    origin=Origin.POLL,
    connection_id=CONNECTION,
    job_type="sync",
    started_at=START,
    finished_at=END,
    records=1200,
    bytes=2400,
    duration_seconds=600.0,
)
BARE = replace(EVENT, finished_at=None, records=None, bytes=None, duration_seconds=None)


def stored(received_at: datetime = END + timedelta(milliseconds=300), **data: Any) -> StoredNotification:
    stored.ids += 1  # type: ignore[attr-defined]
    title = "Sync completed: x" if data.get("success") else "Sync failure occurred: x"
    body = {"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": title}}], "data": {**REAL, **data}}
    return StoredNotification(
        id=stored.ids,  # type: ignore[attr-defined]
        instance="default",
        received_at=received_at,
        kind="failure",
        job_id=5,
        body=json.dumps(body).encode(),
        outcome=Outcome.PENDING,
    )


stored.ids = 0  # type: ignore[attr-defined]


def received(notification: StoredNotification) -> Received:
    return Received.of(notification, reread)


def among(*notifications: StoredNotification, event: JobEvent = EVENT, airbyte: str = AIRBYTE) -> JobEvent:
    return Candidates.among(map(received, notifications), event, airbyte).enriched()


def forged(name: str = "forged", **data: Any) -> dict[str, Any]:
    return {"connection": {"id": CONNECTION, "name": name, "url": PAGE}, "errorMessage": name, **data}


class TestTheApisValues:
    def test_win_wherever_it_has_any(self) -> None:
        assert among(stored()) == replace(
            EVENT,
            workspace_id="w",
            error=JobError(message="no such table", type="config_error", origin="destination"),
            names={"workspace": "Team", "connection": "orders"},
            url=PAGE,
            unconfirmed=frozenset({"workspace_id", "error", "names", "url"}),
        )

    def test_zero_is_a_value(self) -> None:
        told = among(stored(), event=replace(EVENT, records=0, bytes=0, duration_seconds=0.0))
        assert (told.records, told.bytes, told.duration_seconds) == (0, 0, 0.0)

    def test_where_it_has_none_the_webhooks_are_taken_and_marked(self) -> None:
        told = among(stored(), event=BARE)
        assert (told.records, told.bytes, told.duration_seconds, told.finished_at) == (1300, 2600, 597.0, END)
        assert told.unconfirmed >= {"records", "bytes", "duration_seconds", "finished_at"}

    def test_a_start_is_never_taken_for_it_tells_jobs_apart(self) -> None:
        assert among(stored(), event=replace(EVENT, started_at=None)).started_at is None

    def test_only_a_failure_has_a_reason(self) -> None:
        told = among(
            stored(success=True, errorMessage="no", received_at=END), event=replace(EVENT, status=JobStatus.SUCCEEDED)
        )
        assert told.error is None
        assert "error" not in told.unconfirmed
        assert told.names["connection"] == "orders"


class TestWhatContradictsTheApi:
    @pytest.mark.parametrize(
        "data",
        [
            {"success": True},
            {"connection": {"id": CONNECTION.replace("5", "6"), "name": "another", "url": PAGE}},
        ],
    )
    def test_is_not_taken(self, data: dict[str, Any]) -> None:
        assert among(stored(**forged(**data) | data)) == EVENT

    @pytest.mark.parametrize(
        "data",
        [
            {"finishedAt": format_time(START - timedelta(hours=1))},
            {"finishedAt": format_time(END + timedelta(seconds=3))},
            {"finishedAt": "2199-12-31T00:00:00Z"},
            {"startedAt": format_time(START - timedelta(seconds=3))},
            {"startedAt": format_time(END + timedelta(seconds=3))},
        ],
    )
    def test_a_time_outside_of_the_jobs_life_is_not_taken_and_any_other_notification_is_better(
        self, data: dict[str, Any]
    ) -> None:
        contradicting = stored(**forged(**data))
        assert among(contradicting).finished_at == END
        bare = stored(END + timedelta(hours=1), startedAt=None, finishedAt=None, connection=None)
        assert among(contradicting, bare) == among(bare)

    def test_a_finish_before_the_start_is_none(self) -> None:
        assert among(stored(finishedAt=format_time(START - timedelta(hours=1))), event=BARE).finished_at is None
        assert among(stored(finishedAt=format_time(END + timedelta(hours=1))), event=BARE).finished_at is None

    @pytest.mark.parametrize("finish", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0000-01-01T00:00Z", 5, "soon"])
    def test_a_time_out_of_range_is_none(self, finish: Any) -> None:
        assert among(stored(finishedAt=finish), event=BARE).finished_at is None

    @pytest.mark.parametrize("count", [-1, 2**63, True, 1.5, "5", [], None])
    def test_a_count_out_of_range_is_none(self, count: Any) -> None:
        told = among(stored(recordsCommitted=count, bytesCommitted=count), event=BARE)
        assert (told.records, told.bytes) == (None, None)

    @pytest.mark.parametrize("seconds", [-1, 2**63 - 1, True, 1e300, "5", None])
    def test_a_duration_out_of_range_is_none(self, seconds: Any) -> None:
        assert among(stored(durationInSeconds=seconds), event=BARE).duration_seconds is None

    def test_what_came_before_the_job_was_created_is_of_an_older_one_of_its_number(self) -> None:
        old = stored(startedAt=None, finishedAt=None, received_at=START - timedelta(hours=1))
        assert among(old) == EVENT
        assert among(stored(startedAt=None, finishedAt=None)).error is not None

    def test_what_came_long_before_the_end_is_not_of_it(self) -> None:
        assert among(stored(startedAt=None, finishedAt=None, received_at=END - timedelta(minutes=5))) == EVENT

    def test_where_the_clocks_differ_the_notifications_own_times_count(self) -> None:
        """The listener's clock is an hour behind Airbyte's."""
        assert among(stored(received_at=END - timedelta(hours=1))).error is not None


class TestTheBest:
    @pytest.mark.parametrize(
        "others",
        [
            [forged(finishedAt=format_time(END - timedelta(seconds=5)))],
            [forged(finishedAt=None), forged(startedAt=None), forged(finishedAt=None, startedAt=None)],
            [forged(str(number), finishedAt=format_time(END - timedelta(seconds=number + 3))) for number in range(50)],
            [forged(recordsCommitted=0, bytesCommitted=0, finishedAt=format_time(START))],
        ],
    )
    @pytest.mark.parametrize("when", [-400, -1, 0, 1, 400])
    def test_wins_whichever_came_first_or_last(self, others: list[dict[str, Any]], when: int) -> None:
        forgeries = [stored(END + timedelta(seconds=when), **data) for data in others]
        real = stored()
        for order in ([real, *forgeries], [*forgeries, real], [*forgeries, real, *forgeries]):
            assert among(*order) == among(real)

    def test_of_equals_it_is_the_first_after_the_end(self) -> None:
        early, real, late = (
            stored(END + timedelta(seconds=seconds), errorMessage=f"{seconds}") for seconds in (-3, 0, 3)
        )
        told = among(late, real, early)
        assert told.error is not None
        assert told.error.message == "0"

    def test_counts_that_agree_tell_it_from_one_that_guesses_the_end(self) -> None:
        real = stored(recordsCommitted=1200, bytesCommitted=2400)
        assert among(stored(END, **forged()), real) == among(real)

    def test_without_any_it_is_what_the_api_says(self) -> None:
        assert among() == EVENT
        assert not Candidates.among(map(received, []), EVENT, AIRBYTE).improve(EVENT)

    def test_a_body_that_can_not_be_read_any_more_is_none(self) -> None:
        assert among(replace(stored(), body=b"\xff"), replace(stored(), body=b"")) == EVENT


class TestImproving:
    def test_a_better_one_replaces_a_worse_one(self) -> None:
        worse, better = stored(END, **forged(finishedAt=None)), stored()
        known = among(worse)
        candidates = Candidates.among(map(received, [worse, better]), EVENT, AIRBYTE)
        assert candidates.improve(known)
        assert annotate(known, candidates.enriched()) == among(better)

    def test_a_worse_one_replaces_nothing(self) -> None:
        known = among(better := stored())
        worse = [stored(END + timedelta(hours=1), **forged(str(number), finishedAt=None)) for number in range(9)]
        assert not Candidates.among(map(received, [better, *worse]), EVENT, AIRBYTE).improve(known)

    def test_nor_once_the_better_one_is_not_at_hand_any_more(self) -> None:
        known = among(stored())
        late = stored(END + timedelta(days=40), **forged())
        assert not Candidates.among(map(received, [late]), EVENT, AIRBYTE).improve(known)

    def test_one_that_agrees_in_all_replaces_what_is_not_at_hand_any_more(self) -> None:
        known = among(stored(END, **forged(finishedAt=None)))
        real = stored(recordsCommitted=1200, bytesCommitted=2400)
        candidates = Candidates.among([received(real)], EVENT, AIRBYTE)
        assert annotate(known, candidates.enriched()) == among(real)
        assert candidates.improve(known)

    def test_one_that_adds_to_what_nobody_said_is_taken(self) -> None:
        assert Candidates.among(map(received, [stored()]), EVENT, AIRBYTE).improve(EVENT)


class TestLinks:
    @pytest.mark.parametrize(
        "url",
        [
            "javascript:alert(1)",
            f"javascript://airbyte.example.com/connections/{CONNECTION}",
            f"ftp://airbyte.example.com/connections/{CONNECTION}",
            f"https://user@airbyte.example.com/connections/{CONNECTION}",
            f"https://airbyte.example.com.evil.test/connections/{CONNECTION}",
            f"https://evil.test/connections/{CONNECTION}",
            f"https://evil.test/?airbyte.example.com/connections/{CONNECTION}",
            f"https://evil.test#https://airbyte.example.com/connections/{CONNECTION}",
            f"https://airbyte.example.com/?/connections/{CONNECTION}",
            "https://airbyte.example.com/connections/another",
            "https://airbyte.example.com/login",
            PAGE + "/" + "x" * 2_000,
        ],
    )
    def test_to_elsewhere_are_not_taken(self, url: str) -> None:
        assert among(stored(connection={"id": CONNECTION, "name": "orders", "url": url})).url is None

    @pytest.mark.parametrize(
        ("airbyte", "url"),
        [
            (AIRBYTE, f"{PAGE}/status"),
            ("https://api.airbyte.com/v1", f"https://cloud.airbyte.com/workspaces/w/connections/{CONNECTION}"),
            (AIRBYTE, f"https://ui.example.com/workspaces/w/connections/{CONNECTION.upper()}"),
            ("http://airbyte-server:8001/api/public/v1", PAGE),
            ("http://airbyte-server.airbyte.svc.cluster.local:8001", PAGE),
            ("http://10.0.0.5:8000/api/public/v1", PAGE),
            ("http://[::1]:8000/api/public/v1", PAGE),
        ],
    )
    def test_to_the_connections_page_are_taken(self, airbyte: str, url: str) -> None:
        told = among(stored(connection={"id": CONNECTION, "name": "orders", "url": url}), airbyte=airbyte)
        assert told.url == url
        assert "url" in told.unconfirmed


def test_texts_are_bounded() -> None:
    long = "x" * 50_000
    names: dict[str, Any] = {
        noun: {"id": CONNECTION if noun == "connection" else long, "name": long} for noun in ("workspace", "connection")
    }
    told = among(stored(errorMessage=long, errorType=long, errorOrigin=long, **names))
    assert told.error is not None
    assert len(told.error.message or "") == 10_000
    assert (told.error.message or "").endswith("x…")
    assert max(map(len, [told.error.type or "", told.error.origin or "", told.workspace_id or ""])) == 100
    assert max(map(len, told.names.values())) == 500

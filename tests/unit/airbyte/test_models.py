"""Jobs as the public API writes them, and as it might."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airbyte_events.airbyte.models import parse_duration, parse_job
from airbyte_events.events import JobStatus
from airbyte_events.jobs import Job

FIELDS: dict[str, Any] = {
    "jobId": 1234,
    "status": "succeeded",
    "jobType": "sync",
    "startTime": "2024-01-01T00:00Z",
    "connectionId": "64d901a1-2520-4d91-93c8-9df438668ff0",
    "lastUpdatedAt": "2024-01-01T08:06:12.5Z",
    "duration": "PT8H6M12S",
    "bytesSynced": 9000,
    "rowsSynced": 90,
}


def test_a_job() -> None:
    assert parse_job(FIELDS) == Job(
        job_id=1234,
        status=JobStatus.SUCCEEDED,
        job_type="sync",
        connection_id="64d901a1-2520-4d91-93c8-9df438668ff0",
        started_at=datetime(2024, 1, 1, tzinfo=UTC),
        updated_at=datetime(2024, 1, 1, 8, 6, 12, 500_000, tzinfo=UTC),
        duration_seconds=29172.0,
        bytes=9000,
        records=90,
    )


def test_an_active_job_lacks_its_update_time() -> None:
    fields = {"jobId": 1, "status": "running", "jobType": "sync", "startTime": "2024-01-01T00:00:00Z"}

    assert parse_job(fields).updated_at is None
    assert parse_job(fields | {"lastUpdatedAt": None}).status is JobStatus.RUNNING


@pytest.mark.parametrize("status", ["", "SUCCEEDED", "paused"])
def test_an_unknown_status_is_active(status: str) -> None:
    job = parse_job(FIELDS | {"status": status})

    assert job.status is JobStatus.UNKNOWN
    assert not job.status.terminal


@pytest.mark.parametrize("name", ["jobType", "startTime", "connectionId", "lastUpdatedAt", "duration", "bytesSynced"])
@pytest.mark.parametrize("wrong", [None, True, -1, 2**63, 1.5, "", "x", [], {}])
def test_a_wrong_type_is_unknown(name: str, wrong: Any) -> None:
    job = parse_job(FIELDS | {name: wrong})

    assert job.job_id == 1234
    assert job.records == 90


@pytest.mark.parametrize("fields", [None, [], "x", {}, {"jobId": 1}, {"jobId": None, "status": "running"}])
def test_no_job(fields: Any) -> None:
    with pytest.raises(ValueError, match="without a usable jobId and status"):
        parse_job(fields)


@pytest.mark.parametrize("status", [None, 1, ["succeeded"], {"value": "succeeded"}])
def test_no_status(status: Any) -> None:
    with pytest.raises(ValueError, match="status"):
        parse_job(FIELDS | {"status": status})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT0S", 0.0),
        ("PT12S", 12.0),
        ("PT6M", 360.0),
        ("PT8H6M12S", 29172.0),
        ("PT0.25S", 0.25),
        ("PT1,5S", 1.5),
        ("PT25H", 90000.0),
        ("P2D", 172800.0),
        ("P1DT1S", 86401.0),
        ("P1W", 604800.0),
        ("", None),
        ("P", None),
        ("PT", None),
        ("P1DT", None),
        ("PT-5S", None),
        ("-PT5S", None),
        ("P1Y", None),
        ("5", None),
        ("PT5", None),
        ("PT1S2M", None),
        ("PT" + "9" * 400 + "S", None),
        (5, None),
        (None, None),
    ],
)
def test_durations(text: Any, seconds: float | None) -> None:
    assert parse_duration(text) == seconds

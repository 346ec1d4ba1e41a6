"""What a job's end is called in the task's log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airbyte_events.events import JobError, JobEvent, JobRef, JobStatus, Origin
from airbyte_events_provider.waiting.result import describe, missing_records, outcome

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event(status: JobStatus, **values: Any) -> JobEvent:
    fields: dict[str, Any] = {"observed_at": NOW, "origin": Origin.POLL, "connection_id": "uuid"}
    return JobEvent(ref=JobRef("default", 17), status=status, **fields | values)


@pytest.mark.parametrize(
    ("status", "values", "words"),
    [
        (JobStatus.SUCCEEDED, {}, "Airbyte job 17 of connection uuid succeeded."),
        (
            JobStatus.SUCCEEDED,
            {"records": 1234, "bytes": 5, "duration_seconds": 60.0, "names": {"connection": "orders"}},
            "Airbyte job 17 of connection orders (uuid) succeeded (1,234 records, 5 bytes, 60 s).",
        ),
        (JobStatus.CANCELLED, {}, "Airbyte job 17 of connection uuid was cancelled in Airbyte."),
        (
            JobStatus.FAILED,
            {"url": "http://airbyte/connections/uuid"},
            "Airbyte job 17 of connection uuid failed: Airbyte's API has no reason; see the job's log in Airbyte. "
            "See http://airbyte/connections/uuid",
        ),
        (
            JobStatus.FAILED,
            {"error": JobError(message="no route", type="transient_error", origin="source")},
            "Airbyte job 17 of connection uuid failed: no route (type transient_error, origin source). "
            "A retry of the task may succeed.",
        ),
        (
            JobStatus.FAILED,
            {"error": JobError(message="bad", type="config_error")},
            "Airbyte job 17 of connection uuid failed: bad (type config_error). Correct the settings of the "
            "connection, its source and its destination in Airbyte, then clear the task.",
        ),
        (
            JobStatus.FAILED,
            {
                "error": JobError(message="gone", origin="source", retryable=False, stream="public.orders"),
                "attempts": 3,
            },
            "Airbyte job 17 of connection uuid failed after 3 attempts: gone (origin source, stream public.orders). "
            "Airbyte knows that a retry will not succeed; check the source first.",
        ),
        (
            JobStatus.FAILED,
            {"error": JobError(message="lost", retryable=True), "attempts": 1},
            "Airbyte job 17 of connection uuid failed: lost. A retry of the task may succeed.",
        ),
    ],
)
def test_words(status: JobStatus, values: dict[str, Any], words: str) -> None:
    assert describe(event(status, **values)) == words


@pytest.mark.parametrize(
    ("status", "name"),
    [(JobStatus.SUCCEEDED, "success"), (JobStatus.FAILED, "error"), (JobStatus.CANCELLED, "cancelled")],
)
def test_statuses(status: JobStatus, name: str) -> None:
    result = outcome(event(status))
    assert (result["status"], result["job_id"], result["job"]["status"]) == (name, 17, status.value)


@pytest.mark.parametrize(
    ("records", "wanted", "enough"), [(None, None, True), (0, 0, True), (0, 1, False), (1, 1, True), (None, 0, False)]
)
def test_min_records(records: int | None, wanted: int | None, enough: bool) -> None:
    result = outcome(event(JobStatus.SUCCEEDED, records=records))
    assert (missing_records(result, wanted) is None) is enough

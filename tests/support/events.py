"""Job events and webhook bodies."""

from __future__ import annotations

import json
from typing import Any

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.events import JobEvent, JobRef, JobStatus, Origin, parse_status

CONNECTION = "5f0c3d52-8f27-4a5e-9f7e-0d3c6a1b2c3d"


def webhook_body(job_id: int | None, success: bool = True, *, title: str | None = None, **data: Any) -> bytes:
    """A webhook's body, of a job that was created and ended just now unless it says otherwise."""
    now = utcnow()
    headline = title or ("Sync completed" if success else "Sync failure occurred")
    about = {
        "workspace": {"id": "w1", "name": "Team"},
        "connection": {"id": CONNECTION, "name": "orders", "url": "https://airbyte.example.com/c/1"},
        "jobId": job_id,
        "startedAt": format_time(now),
        "finishedAt": format_time(now),
        "success": success,
        "recordsCommitted": 45,
        "bytesCommitted": 90,
        "durationInSeconds": 3600,
        "errorMessage": None if success else "no such table",
        "errorType": None if success else "config_error",
        "errorOrigin": None if success else "destination",
    }
    text = f"{headline}: <https://airbyte.example.com|orders>"
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]
    return json.dumps({"text": text, "blocks": blocks, "data": about | data}).encode()


def event_of(job_id: int, status: str = "succeeded", connection_id: str | None = CONNECTION) -> JobEvent:
    return JobEvent(
        ref=JobRef("default", job_id),
        status=parse_status(status),
        observed_at=utcnow(),
        origin=Origin.WEBHOOK,
        connection_id=connection_id,
        job_type="sync",
    )


def status_of(state: JobEvent | None) -> JobStatus | None:
    """Return the status of a job's latest state; None if the job is unknown."""
    return None if state is None else state.status

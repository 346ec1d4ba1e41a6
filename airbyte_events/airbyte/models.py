"""Jobs from the public API's JSON."""

from __future__ import annotations

import re
from typing import Any

from airbyte_events._utils import json_values
from airbyte_events.errors import AirbyteError, Conflict, Forbidden, NotFound
from airbyte_events.events import parse_status
from airbyte_events.jobs import Job


def parse_job(value: object) -> Job:
    """Read a job object. Missing and invalid optional fields are None.

    :raises ValueError: if it has no job id or no status.
    """
    fields: dict[str, Any] = json_values.mapping(value)
    job_id = json_values.job_id(fields.get("jobId"))
    status = fields.get("status")
    if job_id is None or not isinstance(status, str):
        raise ValueError("a job without a usable jobId and status")
    return Job(
        job_id=job_id,
        status=parse_status(status),
        job_type=json_values.text(fields.get("jobType")),
        connection_id=json_values.text(fields.get("connectionId")),
        started_at=json_values.instant(fields.get("startTime")),
        updated_at=json_values.instant(fields.get("lastUpdatedAt")),
        duration_seconds=parse_duration(fields.get("duration")),
        bytes=json_values.whole(fields.get("bytesSynced")),
        records=json_values.whole(fields.get("rowsSynced")),
    )


_NUMBER = r"[0-9]{1,12}"
_DURATION = re.compile(
    rf"P(?=[0-9T])(?:(?P<weeks>{_NUMBER})W)?(?:(?P<days>{_NUMBER})D)?"
    rf"(?:T(?=[0-9])(?:(?P<hours>{_NUMBER})H)?(?:(?P<minutes>{_NUMBER})M)?"
    rf"(?:(?P<seconds>{_NUMBER}(?:[.,][0-9]{{1,12}})?)S)?)?"
)
_SECONDS = {"weeks": 604800, "days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


def parse_duration(value: object) -> float | None:
    """Return an ISO 8601 duration such as ``PT8H6M12S`` in seconds; None if it is invalid, negative or too long."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    return json_values.seconds(
        sum(float(number.replace(",", ".")) * _SECONDS[unit] for unit, number in match.groupdict().items() if number)
    )


def says_unknown(error: AirbyteError) -> bool:
    """Return whether the error means that Airbyte has no such job.

    It responds 409, or 403 on Cloud, with a problem document. A response of a proxy without one means nothing.
    """
    return isinstance(error, (Conflict, Forbidden, NotFound)) and error.type is not None

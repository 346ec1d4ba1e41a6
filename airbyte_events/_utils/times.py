"""Times: aware, in UTC, RFC 3339 outside."""

from __future__ import annotations

import re
from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return the current time, aware and in UTC."""
    return datetime.now(UTC)


_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)\s*(Z|z|[+-](?:[01]\d|2[0-3]):?[0-5]\d)?", re.ASCII
)


EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""The limits of valid times: calculations with others could overflow."""

LONGEST_SECONDS = 100 * 366 * 86400.0
"""The longest valid duration."""


def is_sane(moment: datetime) -> bool:
    """Return whether a time lies from :data:`EARLIEST` to :data:`LATEST`."""
    return EARLIEST <= moment <= LATEST


def parse_time(value: object) -> datetime | None:
    """Parse an ISO 8601 time of any precision, from minutes to nanoseconds; None stays None.

    A time without an offset is in UTC.

    :raises ValueError: if the value is not a time from :data:`EARLIEST` to :data:`LATEST`.
    """
    if value is None:
        return None
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"not an ISO 8601 time: {str(value)[:40]!r}")
    try:
        moment = datetime.fromisoformat(match[1] + (match[2] or "Z").upper()).astimezone(UTC)
    except OverflowError as exc:
        raise ValueError(f"not an ISO 8601 time: {str(value)[:40]!r}") from exc
    if not is_sane(moment):
        raise ValueError(f"not a time between {EARLIEST.year} and {LATEST.year}: {str(value)[:40]!r}")
    return moment


def format_time(moment: datetime | None) -> str | None:
    """Format as RFC 3339 in UTC with microseconds, ``2024-01-01T00:00:00.000000Z``, so that text sorts as time."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def duration(seconds: float | None) -> str:
    """Return ``850 ms``, ``12.3 s``, or the two largest units: ``4 min 10 s``, ``2 h``, ``1 d 5 h``."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    left, parts = round(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        value, left = divmod(left, size)
        if value:
            parts.append(f"{value} {unit}")
    return " ".join(parts[:2])

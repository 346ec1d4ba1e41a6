"""Values from untrusted JSON: of the right type and size, or None.

A field that is missing, of another type or out of range is unknown: the rest of the notification or job is still read.
Text can be stored and sent on: NUL and lone surrogates are removed.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, NoReturn
from urllib.parse import urlsplit
from uuid import UUID

from airbyte_events._utils.times import LONGEST_SECONDS, parse_time

LARGEST = 2**63 - 1
"""The largest value of Airbyte's ``Long`` and of a database's ``bigint``."""

LONGEST_URL = 2_000

_MOST_DIGITS = 20


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    :raises ValueError: if the body is not one; the message completes the sentence "the body …".
    """
    if not body.strip():
        raise ValueError("is empty")
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise ValueError(f"is not UTF-8 text (byte {exc.start})") from exc
    try:
        value = json.loads(text, parse_int=_parse_int, parse_constant=_refuse_constant)
    except RecursionError as exc:
        raise ValueError("is nested too deeply") from exc
    except ValueError as exc:
        raise ValueError(f"is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise ValueError(f"is JSON, but {_kind(value)} instead of an object")
    return value


def _parse_int(digits: str) -> int:
    # Parsing thousands of digits takes quadratic time, and no field may be that large.
    return int(digits) if len(digits) <= _MOST_DIGITS else LARGEST + 1


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return {list: "an array", str: "a string", bool: "true or false"}.get(type(value), "a number")


_LOOSE = re.compile(r'\{\s*"text"\s*:\s*"')


def loose_text(body: bytes) -> str | None:
    """Return the text of ``{"text": "…"}`` with unescaped quotes and newlines; None for anything else."""
    try:
        document = body.decode().strip()
    except UnicodeDecodeError:
        return None
    start, end = _LOOSE.match(document), document.rfind('"')
    if start is None or end < start.end() or document[end + 1 :].strip() != "}":
        return None
    return text(document[start.end() : end])


def mapping(value: object) -> dict[str, Any]:
    """Return the object; an empty one for another value."""
    return value if isinstance(value, dict) else {}


def text(value: object, most: int | None = None) -> str | None:
    """Return the text without surrounding space; None if it is empty.

    :param most: characters; a longer text is cut and gets an ellipsis.
    """
    if not isinstance(value, str):
        return None
    found = value.replace("\0", "").encode(errors="replace").decode().strip()
    if most is not None and len(found) > most:
        found = found[: most - 1] + "…"
    return found or None


def web_page(value: object) -> str | None:
    """Return a URL that is safe to show as a link: http or https, without user information."""
    url = text(value)
    if url is None or len(url) > LONGEST_URL or re.search(r"[\x00-\x20\x7f<>\"]", url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return url if parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc else None


def whole(value: object, least: int = 0) -> int | None:
    """Return an integer from ``least`` to :data:`LARGEST`."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if least <= value <= LARGEST else None


def job_id(value: object) -> int | None:
    """Return a job id, also if it is text."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = _parse_int(value)
    return whole(value, least=1)


def seconds(value: object) -> float | None:
    """Return a duration from 0 to :data:`~airbyte_events._utils.times.LONGEST_SECONDS`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LONGEST_SECONDS:
        return None
    return float(value)


def is_uuid(text: str) -> bool:
    """Return whether a text is a UUID, in any spelling."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def instant(value: object) -> datetime | None:
    """Return the time, aware and in UTC, that :func:`~airbyte_events._utils.times.parse_time` accepts."""
    try:
        return parse_time(value)
    except ValueError:
        return None

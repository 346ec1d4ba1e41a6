"""What this package takes of an HTTP answer, whoever gives it: a bounded body as it was sent, and no cookies."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy

import anyio
import httpx

from airbyte_events._utils.times import is_sane

UNPACKED = {"Accept-Encoding": "identity"}
"""The header to ask with: answers are small, and a small one can't unfold into a large one."""


class AnswerRefused(Exception):
    """A body that is not taken; the message completes the sentence "the answer …"."""


async def read_body(response: httpx.Response, most: int) -> bytes:
    """The body of an answer that is being streamed; where its status tells of an error, none if it can't be taken.

    :param most: bytes.
    :raises AnswerRefused: if it is larger, or compressed though none was asked for so.
    """
    try:
        return await _read(response, most)
    except AnswerRefused:
        if response.is_success:
            raise
        return b""


async def _read(response: httpx.Response, most: int) -> bytes:
    body = bytearray()
    with anyio.CancelScope() as scope:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > most:
                # Leaving the loop would leave httpx's nested generators to the garbage collector; cancelling ends them.
                scope.cancel()
                body.clear()
    if scope.cancel_called:
        raise AnswerRefused(f"is larger than {most // 1024 // 1024} MiB")
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise AnswerRefused(f"is compressed ({encoding[:20]!r}) though none was asked for so")
    return bytes(body)


def no_cookies() -> CookieJar:
    """For a client's ``cookies``: takes none. A jar has no bound, and what is in it is sent back with every request."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds of a ``Retry-After`` header, None without one; a date is measured by the server's clock."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", value):
        return float(value)
    until = http_date(value)
    if until is None:
        return None
    now = http_date(headers.get("date")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def http_date(value: str | None) -> datetime | None:
    """Return the time of a header such as ``Date``, in UTC; None if it is none."""
    try:
        moment = parsedate_to_datetime(value or "")
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if is_sane(moment) else None

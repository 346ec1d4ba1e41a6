"""Reading HTTP responses: bounded, uncompressed bodies, and no cookies."""

from __future__ import annotations

import os
import re
import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar
from typing import cast

import anyio
import httpx

from airbyte_events._utils.times import is_sane

UNPACKED = {"Accept-Encoding": "identity"}
"""A request header that forbids compression, so that a small response can't expand into a large one."""


class ResponseRefused(Exception):
    """A body that is too large or compressed; the message completes the sentence "the response …"."""


async def read_body(response: httpx.Response, most: int) -> bytes:
    """Return the body of a streamed response; an empty one if it can't be accepted and the status is an error.

    :param most: bytes.
    :raises ResponseRefused: if a 2xx response is larger or compressed.
    """
    body = bytearray()
    # The stream itself: httpx's ``aiter_raw`` adds three layers of generators to each chunk.
    stream = cast("httpx.AsyncByteStream", response.stream)
    with anyio.CancelScope() as scope:
        async for chunk in stream:
            body += chunk
            if len(body) > most:
                # Leaving the loop would leave httpx's nested generators to the garbage collector; cancelling ends them.
                scope.cancel()
                body.clear()
    encoding = response.headers.get("content-encoding", "identity")
    if not scope.cancel_called and encoding.lower() == "identity":
        return bytes(body)
    if not response.is_success:
        return b""
    if scope.cancel_called:
        raise ResponseRefused(f"is larger than {most // 1024 // 1024} MiB")
    raise ResponseRefused(f"is compressed ({encoding[:20]!r}) though none was asked for so")


class _NoCookies(CookieJar):
    def extract_cookies(self, *_: object) -> None:
        """Ignore the cookies of a response, whose headers need not be parsed for them."""


def why(exc: BaseException) -> str:
    """Return why a request failed, in the words of the system where it has some. They contain no part of the URL."""
    if isinstance(exc, httpx.TimeoutException):
        return "no response in time"
    # Other messages could contain secrets. Those of a ConnectError are about host, certificate or network.
    words = _WORDS.get(type(exc)) or (isinstance(exc, _SAFE) and " ".join(str(exc).split())) or type(exc).__name__
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"no TLS connection: {str(cause.reason).replace('_', ' ').lower()}"
        if isinstance(cause, socket.gaierror):
            return f"its name can't be resolved: {cause.strerror}"
        if isinstance(cause, OSError) and cause.errno:
            words = os.strerror(cause.errno)
        # Attempts at several addresses are a group.
        below: BaseException | None = next(iter(getattr(cause, "exceptions", ())), None)
        cause = below or cause.__cause__ or cause.__context__
    return words


_SAFE = (httpx.ConnectError, httpx.ProxyError)
_WORDS: dict[type[BaseException], str] = {
    httpx.ReadError: "the connection broke",
    httpx.WriteError: "the connection broke",
    httpx.RemoteProtocolError: "the server closed the connection, or does not speak HTTP",
}


def no_cookies() -> CookieJar:
    """Return a cookie jar that stays empty. Other jars grow without bound and are sent back with every request."""
    return _NoCookies()


def retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds of a ``Retry-After`` header, by the server's clock if it is a date; None without one."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", value):
        return float(value)
    until = http_date(value)
    if until is None:
        return None
    now = http_date(headers.get("date")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def http_date(value: str | None) -> datetime | None:
    """Return the time of a header such as ``Date``, in UTC; None if it is invalid."""
    try:
        moment = parsedate_to_datetime(value or "")
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if is_sane(moment) else None

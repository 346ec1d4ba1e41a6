"""One HTTP exchange, bounded in time and size. Failures are raised as this package's errors.

Their messages name method, path and host, and never a query, user information, tokens or secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

import anyio
import httpx

from airbyte_events._utils import json_values
from airbyte_events._utils.http import UNPACKED, ResponseRefused, http_date, read_body, retry_after, why
from airbyte_events._utils.token_bucket import charge
from airbyte_events.airbyte.error_text import ErrorText, one_line, redirection, web_page
from airbyte_events.errors import (
    AirbyteError,
    AirbyteProtocolError,
    AirbyteStatusError,
    AirbyteUnreachable,
    Conflict,
    Forbidden,
    NotFound,
    NotSent,
    RateLimited,
    ServerError,
    Unauthorized,
    Unprocessable,
)

LARGEST_RESPONSE = 10 * 1024 * 1024
"""Bytes. A page of 100 jobs has about 30 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request.

    :param url: without query.
    :param route: the path with placeholders, ``/jobs/{id}``: for metrics, where job ids would be without bound.
    :param timeout: seconds for the whole exchange.
    :param connect_timeout: seconds for getting a connection, if less.
    :param largest: bytes of a response.
    """

    method: str
    url: str
    route: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    timeout: float
    connect_timeout: float | None = None
    largest: int = LARGEST_RESPONSE

    def __str__(self) -> str:
        url = httpx.URL(self.url)
        return f"{self.method} {url.path} at {url.netloc.decode('ascii')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiResponse:
    """A complete 2xx response.

    :param page: its description if it is a web page.
    """

    request: Request
    headers: httpx.Headers
    body: bytes
    page: str | None = None

    def object(self) -> dict[str, Any]:
        """:raises AirbyteProtocolError: if the body is not a JSON object."""
        try:
            return json_values.parse_object(self.body)
        except ValueError as exc:
            self.refuse_page()
            raise AirbyteProtocolError(f"{self.request}: the response {exc}") from exc

    def refuse_page(self) -> None:
        """:raises AirbyteProtocolError: if the body is a web page."""
        if self.page is not None:
            raise AirbyteProtocolError(
                f"{self.request}: the response is {self.page}: check that this is the API's address, and that no proxy "
                "requires a login"
            )

    @property
    def served_at(self) -> datetime | None:
        """The server's clock, from the ``Date`` header."""
        return http_date(self.headers.get("date"))


NO_HEADERS: Mapping[str, str] = MappingProxyType({})

Observer = Callable[[str, "int | None"], None]
"""Called for each request with its method and route (``GET /jobs/{id}``), and the HTTP status, None for no response."""


async def exchange(
    http: httpx.AsyncClient,
    request: Request,
    *,
    token: str | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
    hide: tuple[str, ...] = (),
    observe: Observer | None = None,
) -> ApiResponse:
    """Send the request once.

    :param token: the access token, if there is one.
    :param headers: further ones, such as for a gateway.
    :param hide: secrets to mask in messages if the server repeats them.
    :return: a 2xx response.
    :raises NotSent: if no connection was made.
    :raises AirbyteUnreachable: without a complete response; Airbyte may have acted on the request.
    :raises AirbyteStatusError: for any other status.
    :raises AirbyteProtocolError: for a redirect, or a response that is too large or compressed.
    """
    hide = (*hide, token) if token else hide
    status = None
    charge()
    try:
        with anyio.fail_after(request.timeout):
            sent = _build(request, {**headers, **_headers(token)})
            response = await http.send(sent, stream=True, follow_redirects=False)
            status = response.status_code
            try:
                body = await read_body(response, request.largest)
            finally:
                await response.aclose()
    except TimeoutError as exc:
        raise AirbyteUnreachable(f"{request}: no response within {request.timeout:g} s") from exc
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as exc:
        raise NotSent(f"{request}: no connection ({one_line(why(exc), hide)})") from exc
    except (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
        raise AirbyteProtocolError(f"{request}: {_reason(exc, hide)}") from exc
    except httpx.RequestError as exc:
        raise AirbyteUnreachable(f"{request}: incomplete response ({_reason(exc, hide)})") from exc
    except ResponseRefused as exc:
        raise AirbyteProtocolError(f"{request}: the response {exc}") from exc
    finally:
        if observe is not None:
            observe(f"{request.method} {request.route}", status)
    if not 200 <= status <= 299:
        raise _refusal(request, response, body, hide)
    page = web_page(response.headers, body, hide)
    return ApiResponse(request=request, headers=response.headers, body=body, page=page)


def _headers(token: str | None) -> dict[str, str]:
    headers = {"Accept": "application/json", **UNPACKED, "User-Agent": "airbyte-events"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _build(request: Request, headers: Mapping[str, str]) -> httpx.Request:
    """Return httpx's request. Its ``build_request`` takes longer: it merges the client's settings, which has none."""
    connecting = min(request.timeout, request.connect_timeout or request.timeout)
    # Without timers of each read and write: the whole exchange is timed.
    return httpx.Request(
        request.method,
        request.url,
        params=request.params or None,
        json=request.json,
        headers=headers,
        extensions={"timeout": {"connect": connecting, "pool": connecting}},
    )


_ERRORS: dict[int, type[AirbyteStatusError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Unprocessable,
    429: RateLimited,
}


def _refusal(request: Request, response: httpx.Response, body: bytes, hide: tuple[str, ...]) -> AirbyteError:
    status = response.status_code
    if status < 400:
        return AirbyteProtocolError(f"{request}: {redirection(request.url, response)}", redirect=True)
    words = ErrorText.of(response, body, hide)
    error = ServerError if status >= 500 else _ERRORS.get(status, AirbyteStatusError)
    return error(
        status,
        f"{request}: {status}{f' {words.type}' if words.type else ''}: {words.message}",
        type=words.type,
        retry_after=retry_after(response.headers),
        page=words.page,
    )


def _reason(exc: Exception, hide: tuple[str, ...]) -> str:
    return one_line(str(exc) or why(exc), hide)

"""The listener that a command calls: its address, its API token, and its responses."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx

from airbyte_events._utils import json_values
from airbyte_events._utils.http import UNPACKED, ResponseRefused, no_cookies, read_body
from airbyte_events._utils.proxies import async_client
from airbyte_events.errors import FeedRefused, FeedUnreachable, SettingsError
from airbyte_events.feed.client import LARGEST_RESPONSE, RESPONSE_SECONDS, FeedClient, proxy_remedy
from airbyte_events.listener.settings import Settings, check_address, is_loopback

HOW_TO_AUTHENTICATE = (
    "set AIRBYTE_EVENTS_LISTENER_TOKEN (or _FILE) to one of the listener's API tokens; serve prints those it generates"
)
_LONGEST_MESSAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A listener's address, and the API token for it.

    :param url: without a trailing slash.
    :param token: None if unknown.
    """

    url: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings, given: str | None = None) -> Address:
        """Return the listener of the option or of the settings; by default the one that has these settings.

        The settings' own API tokens are sent to no other machine.

        :param given: the value of ``--listener``.
        :raises SettingsError: if that is not a URL.
        """
        own = own_url(settings)
        try:
            url = check_address(given) if given else settings.listener_url or own
        except ValueError as exc:
            raise SettingsError(f"--listener: {exc}; for example --listener https://events.example.com") from None
        token = settings.listener_token
        if token is None and settings.api_tokens and (url == own or is_loopback(httpx.URL(url).host)):
            token = settings.api_tokens[0]
        return cls(url=url, token=None if token is None else token.get_secret_value())


def own_url(settings: Settings) -> str:
    """Return the URL of the listener of these settings, on its own machine."""
    scheme = "http" if settings.tls_certfile is None else "https"
    return f"{scheme}://{_reached(settings.host)}:{settings.port or 8484}"


def receiver_url(settings: Settings, listener: Address) -> str:
    """Return the receiver's URL: the public URL of the settings, else one of this machine."""
    if settings.public_url is not None:
        return settings.public_url
    if settings.webhook_apart is None:
        return listener.url
    host, port = settings.webhook_apart
    return f"{'http' if settings.tls_certfile is None else 'https'}://{_reached(host)}:{port}"


def _reached(host: str) -> str:
    if host in {"0.0.0.0", "::"}:  # noqa: S104 -- everywhere includes here
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def http_client(*urls: str) -> httpx.AsyncClient:
    """Return a client for these servers, with the environment's proxies unless all of them are on this machine.

    :raises SettingsError: if the environment names an unusable proxy.
    """
    proxied = not all(is_loopback(httpx.URL(url).host) for url in urls)
    return async_client(cookies=no_cookies(), follow_redirects=False, proxied=proxied)


class Listener:
    """A listener's API.

    :param http: a client that the caller closes.
    :raises SettingsError: if the token is invalid.
    """

    def __init__(self, http: httpx.AsyncClient, address: Address) -> None:
        self.address = address
        self.feed = FeedClient(http, address.url, address.token)
        self._http = http

    async def get(self, path: str, params: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        """Return the response to a GET.

        :raises FeedUnreachable: if no listener responds.
        :raises FeedRefused: for a status other than 200.
        """
        return await self._ask("GET", path, params)

    async def post(self, path: str) -> dict[str, Any]:
        """Return the response to a POST without a body; raises as :meth:`get` does."""
        return await self._ask("POST", path, ())

    async def _ask(self, method: str, path: str, params: Sequence[tuple[str, str]]) -> dict[str, Any]:
        token = self.address.token
        headers = {**UNPACKED, "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        url = self.address.url
        try:
            with anyio.fail_after(RESPONSE_SECONDS):
                async with self._http.stream(
                    method, f"{url}{path}", params=list(params) or None, headers=headers, timeout=RESPONSE_SECONDS
                ) as response:
                    body = await read_body(response, LARGEST_RESPONSE)
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise FeedUnreachable(f"the listener {url} does not answer") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise FeedUnreachable(
                f"no listener answers at {url} ({type(exc).__name__}): start it, or name another one by --listener or "
                "AIRBYTE_EVENTS_LISTENER_URL"
            ) from exc
        except ResponseRefused as exc:
            raise FeedUnreachable(f"the listener {url}: the answer {exc}") from exc
        return self._parsed(response.status_code, body)

    def _parsed(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            content = json_values.parse_object(body)
        except ValueError:
            content = {}
        if status in (200, 202) and content:
            return content
        raise refusal(status, self.address, json_values.text(content.get("error")))


def refusal(status: int, address: Address, message: str | None) -> FeedRefused | FeedUnreachable:
    """Return the error for a listener's refusal, with its remedy on the command line."""
    if (remedy := proxy_remedy(status, message)) is not None:
        return FeedRefused(status, f"the listener {address.url} answers {status}: {remedy}")
    if status == 401:
        fault = "rejects the API token" if address.token else "requires an API token"
        return FeedRefused(401, f"the listener {address.url} {fault}: {HOW_TO_AUTHENTICATE}")
    words = f": {message[:_LONGEST_MESSAGE]}" if message else ", as no listener does: check the URL"
    if status >= 500:
        return FeedUnreachable(f"the listener {address.url} answers {status}{words if message else ''}")
    return FeedRefused(status, f"the listener {address.url} answers {status}{words}")


@contextlib.asynccontextmanager
async def open_listener(address: Address) -> AsyncIterator[Listener]:
    """Open a listener's API: ``async with open_listener(address) as listener``.

    :raises SettingsError: if the token is invalid.
    """
    async with http_client(address.url) as http:
        yield Listener(http, address)

"""The listener that a command calls: its address, its API token, and its responses."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx

from airbyte_events._utils import json_values
from airbyte_events._utils.http import no_cookies
from airbyte_events._utils.proxies import async_client
from airbyte_events.airbyte.connection_search import Named, only
from airbyte_events.errors import FeedUnreachable, SettingsError
from airbyte_events.feed.client import FeedClient
from airbyte_events.listener.settings import Settings, check_address, is_loopback

HOW_TO_REACH = "start airbyte-events serve, or name another address (--listener, AIRBYTE_EVENTS_LISTENER_URL)"
HOW_TO_AUTHENTICATE = (
    "set AIRBYTE_EVENTS_LISTENER_TOKEN (or _FILE) to one of the listener's API tokens; serve prints those that "
    "it generates, and airbyte-events up keeps them for these commands"
)


PAGE = 1000
"""The items of one response."""

MOST_JOBS = 10_000
"""The number of jobs, the last changed ones, whose connections can be named."""


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
        url = address_of("--listener", given) if given else settings.listener_url or own
        token = settings.listener_token
        if token is None and settings.api_tokens and (url == own or is_loopback(httpx.URL(url).host)):
            token = settings.api_tokens[0]
        return cls(url=url, token=None if token is None else token.get_secret_value())


def address_of(option: str, given: str, example: str = "https://events.example.com") -> str:
    """Return the listener's address that an option gives.

    :raises SettingsError: if it is not a URL.
    """
    try:
        return check_address(given)
    except ValueError as exc:
        raise SettingsError(f"{option}: {exc}; for example {option} {example}") from None


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


@contextlib.asynccontextmanager
async def open_listener(address: Address) -> AsyncIterator[FeedClient]:
    """Open the client of a listener's API: ``async with open_listener(address) as listener``.

    :raises SettingsError: if the token is invalid.
    """
    async with http_client(address.url) as http:
        yield FeedClient(http, address.url, address.token, reaching=HOW_TO_REACH, authenticating=HOW_TO_AUTHENTICATE)


async def pages(
    listener: FeedClient, what: str, limit: int, before: str | None, params: Sequence[tuple[str, str]] = ()
) -> tuple[list[dict[str, Any]], str | None, dict[str, Any]]:
    """Return the first items of one of the listener's lists, where the next page starts, if there is one, and the first
    response."""
    found: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    while True:
        page = [("limit", str(min(PAGE, limit - len(found))))]
        if before is not None:
            page.append(("before", before))
        content = await listener.request("GET", f"/v1/{what}", params=[*params, *page])
        first = first or content
        items = content.get(what)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise FeedUnreachable(f"{listener.url}/v1/{what} did not respond as a listener does")
        found += items
        before = json_values.text(content.get("next"))
        if before is None or not items or len(found) >= limit:
            return found, before, first


async def connection_ids(
    listener: FeedClient, given: Collection[str], instances: Collection[str] = ()
) -> frozenset[str]:
    """Return the ids of connections.

    :param given: their ids or names. A name is that of the connection's last changed job.
    :param instances: where names are looked up; by default everywhere.
    :raises UnknownConnection: if no connection, or several, have a name; the message lists candidates.
    :raises FeedError: if the listener does not respond or refuses.
    """
    ids = {each: str(UUID(each)) for each in given if json_values.is_uuid(each)}
    if named := [each for each in dict.fromkeys(given) if each not in ids]:
        by_name = await _by_name(listener, instances)
        for name in named:
            ids[name] = await only(
                by_name,
                name,
                owner="the listener knows",
                several="write the id of one, or its --instance",
                nothing="it has no job of a named connection yet: write the id in the URL of its page in Airbyte",
            )
    return frozenset(ids.values())


async def _by_name(listener: FeedClient, instances: Collection[str]) -> dict[str, list[Named]]:
    jobs, *_ = await pages(listener, "jobs", MOST_JOBS, None, [("instance", name) for name in sorted(instances)])
    names: dict[tuple[str, str], str] = {}
    for job in jobs:
        instance, id_ = json_values.text(job.get("instance")), json_values.text(job.get("connection_id"))
        name = json_values.text(json_values.mapping(job.get("names")).get("connection"))
        if instance is not None and id_ is not None and name is not None:
            names.setdefault((instance, id_), name)
    by_name: dict[str, list[Named]] = {}
    for (instance, id_), name in names.items():
        by_name.setdefault(name, []).append(Named(connection_id=id_, place=f"of {instance}"))
    return by_name

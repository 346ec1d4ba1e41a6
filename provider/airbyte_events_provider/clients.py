"""HTTP clients by the settings of Airflow connections."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path

import anyio.to_thread
import httpx

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.client import FeedClient
from airbyte_events.errors import SettingsError
from airbyte_events_provider.connections import AirbyteSettings, ListenerSettings


@contextlib.asynccontextmanager
async def open_airbyte(settings: AirbyteSettings, *, attempts: int = 5) -> AsyncIterator[AirbyteClient]:
    """Airbyte's API: ``async with open_airbyte(settings) as airbyte``.

    :param attempts: how often a read is tried.
    :raises SettingsError: if the settings can't be those of an Airbyte.
    """
    tls = await _tls(settings.verify)
    try:
        mounts = {scheme: httpx.AsyncHTTPTransport(verify=tls, proxy=url) for scheme, url in settings.proxies}
        http = httpx.AsyncClient(verify=tls, mounts=mounts)
    except (ValueError, httpx.InvalidURL, ImportError) as exc:
        # The message of httpx holds the URL, and that may hold a password.
        raise SettingsError(f"extra 'proxies' of Airflow connection {settings.conn_id!r} can't be used") from exc
    async with http:
        yield AirbyteClient(
            http,
            settings.url,
            credentials=settings.credentials,
            token_url=settings.token_url,
            timeout=settings.timeout,
            attempts=attempts,
        )


@contextlib.asynccontextmanager
async def open_listener(settings: ListenerSettings) -> AsyncIterator[FeedClient]:
    """A listener's feed: ``async with open_listener(settings) as feed``."""
    async with httpx.AsyncClient(verify=await _tls(settings.verify)) as http:
        yield FeedClient(http, settings.url, settings.token)


async def _tls(verify: bool | str) -> ssl.SSLContext:
    # To load the certificates takes 10 to 30 ms and 0.7 MB: not on the event loop, and once for all.
    return await anyio.to_thread.run_sync(_make_tls, verify)


@lru_cache
def _make_tls(verify: bool | str) -> ssl.SSLContext:
    if isinstance(verify, bool):
        return httpx.create_ssl_context(verify=verify)
    try:
        folder = Path(verify).is_dir()
        return ssl.create_default_context(capath=verify) if folder else ssl.create_default_context(cafile=verify)
    except OSError as exc:
        raise SettingsError(f"verify: there are no certificates in {verify}: {exc.strerror}") from exc

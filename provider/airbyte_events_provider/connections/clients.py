"""HTTP clients for the settings of Airflow connections."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from pathlib import Path

import anyio.to_thread
import httpx

from airbyte_events._utils.http import no_cookies
from airbyte_events._utils.proxies import async_client
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.airbyte.auth import Credentials, HeldToken
from airbyte_events.errors import SettingsError
from airbyte_events.feed.client import FeedClient
from airbyte_events_provider.connections.settings import AirbyteSettings, ListenerSettings
from airbyte_events_provider.stats import count_response


@contextlib.asynccontextmanager
async def open_airbyte(
    settings: AirbyteSettings, *, attempts: int = 5, held: HeldToken | None = None
) -> AsyncIterator[AirbyteClient]:
    """Open a client of Airbyte's API: ``async with open_airbyte(settings) as airbyte``.

    :param attempts: the maximum of attempts of a read.
    :param held: the access token; by default, all clients of a process share it that have the same credentials.
    :raises SettingsError: if the certificates or proxies can't be used.
    """
    tls = await _tls(settings.verify, settings.client_cert)
    with translating_proxy_errors(settings):
        counting = {"response": [count_response]}
        http = async_client(verify=tls, given=settings.proxies, cookies=no_cookies(), event_hooks=counting)
    async with http:
        yield AirbyteClient(
            http,
            settings.url,
            credentials=settings.credentials,
            token_url=settings.token_url,
            held=held or held_token(settings.url, settings.token_url, settings.credentials),
            headers=dict(settings.headers),
            timeout=settings.timeout,
            attempts=attempts,
        )


@lru_cache
def held_token(url: str, token_url: str | None, credentials: Credentials | None) -> HeldToken:
    """Return what holds the token of these credentials.

    A task opens a client for each of its operations, and Airbyte limits the number of token requests, too.
    """
    return HeldToken()


@contextlib.asynccontextmanager
async def open_listener(settings: ListenerSettings) -> AsyncIterator[FeedClient]:
    """Open a client of a listener's feed: ``async with open_listener(settings) as feed``."""
    tls = await _tls(settings.verify, settings.client_cert)
    async with async_client(verify=tls, cookies=no_cookies()) as http:
        yield FeedClient(http, settings.url, settings.token)


@contextlib.contextmanager
def translating_proxy_errors(settings: AirbyteSettings) -> Iterator[None]:
    """Translate errors from constructing a client with these proxies.

    :raises SettingsError: if the proxies can't be used.
    """
    try:
        yield
    except (ValueError, httpx.InvalidURL, ImportError) as exc:
        # Without httpx's message: its URL may contain a password.
        raise SettingsError(f"extra 'proxies' of Airflow connection {settings.conn_id!r} can't be used") from exc


async def _tls(verify: bool | str, client_cert: str | None) -> ssl.SSLContext:
    # Loading the certificates takes 10 to 30 ms and 0.7 MB: in a thread, and cached.
    return await anyio.to_thread.run_sync(make_tls, verify, client_cert)


@lru_cache
def make_tls(verify: bool | str, client_cert: str | None = None) -> ssl.SSLContext:
    """Return the TLS settings of a client.

    :param verify: see :class:`AirbyteSettings`, as for ``client_cert``.
    :raises SettingsError: if a file can't be used.
    """
    tls = _trusting(verify)
    if client_cert is not None:
        try:
            # For a key with a password, OpenSSL would prompt at a terminal.
            tls.load_cert_chain(client_cert, password=_no_password)
        except OSError as exc:
            raise SettingsError(f"client_cert: no certificate with its key in {client_cert}: {exc.strerror}") from exc
    return tls


def _trusting(verify: bool | str) -> ssl.SSLContext:
    if isinstance(verify, bool):
        return httpx.create_ssl_context(verify=verify)
    try:
        folder = Path(verify).is_dir()
        return ssl.create_default_context(capath=verify) if folder else ssl.create_default_context(cafile=verify)
    except OSError as exc:
        raise SettingsError(f"verify: no certificates in {verify}: {exc.strerror}") from exc


def _no_password() -> str:
    raise SettingsError("client_cert: the key has a password, which is not supported: use a key without one")

"""Airflow connections of the types ``airbyte`` and ``airbyte_events``, read and checked."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, conf
from asgiref.sync import sync_to_async

from airbyte_events.airbyte import Credentials, normalise_url
from airbyte_events.errors import SettingsError

try:
    from airflow.sdk.log import mask_secret
except ImportError:  # Airflow 3.0
    from airflow.sdk.execution_time.secrets_masker import mask_secret  # type: ignore[no-redef]

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

logger = logging.getLogger(__name__)

SECTION = "airbyte_events"
"""Of Airflow's configuration."""

REQUEST_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AirbyteSettings:
    """What an Airflow connection of type ``airbyte`` says.

    :param conn_id: its id in Airflow.
    :param url: of the server, in the spelling of the API client.
    :param credentials: None for an Airbyte without authentication.
    :param token_url: where tokens are had, if not at the usual place.
    :param proxies: proxy URLs by scheme (``http://``, ``https://``, ``all://``).
    :param timeout: seconds for one request.
    :param verify: whether, or by the certificates in which file or folder, the server's certificate is checked.
    :param client_cert: a file with a certificate and its key, for a server that wants one.
    :param instance: what a listener calls this Airbyte.
    :param listener_conn_id: the Airflow connection of the listener for it; None if it names none.
    :param web_url: where people reach its web app, if not where that stands beside the API.
    """

    conn_id: str
    url: str
    credentials: Credentials | None = None
    token_url: str | None = None
    proxies: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout: float = REQUEST_SECONDS
    verify: bool | str = True
    client_cert: str | None = None
    instance: str = "default"
    listener_conn_id: str | None = None
    web_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """What an Airflow connection of type ``airbyte_events`` says.

    :param conn_id: its id in Airflow.
    :param url: of the listener.
    :param token: one of its API tokens.
    :param verify: see :class:`AirbyteSettings`.
    :param client_cert: see :class:`AirbyteSettings`.
    :param dashboard_url: where people reach the listener, if not where the workers do.
    """

    conn_id: str
    url: str
    token: str | None = field(default=None, repr=False)
    verify: bool | str = True
    client_cert: str | None = None
    dashboard_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """What a hub needs: an Airbyte, and a listener if there is one."""

    airbyte: AirbyteSettings
    listener: ListenerSettings | None = None


def read_airbyte(conn_id: str) -> AirbyteSettings:
    """Read the Airflow connection of an Airbyte.

    :raises AirflowNotFoundException: if there is no such connection.
    :raises SettingsError: if there is something wrong with it.
    """
    connection = BaseHook.get_connection(conn_id)
    for secret in _secrets(connection):
        mask_secret(secret)
    return parse_airbyte(connection)


def read_listener(conn_id: str) -> ListenerSettings:
    """Read the Airflow connection of a listener; raises as :func:`read_airbyte` does."""
    return parse_listener(BaseHook.get_connection(conn_id))


def read_hub(airbyte_conn_id: str, listener_conn_id: str | None = None) -> HubSettings:
    """Read all that a hub needs.

    A listener's connection that is missing or wrong costs speed, not correctness: it is logged, and Airbyte polled.

    :param airbyte_conn_id: the Airbyte.
    :param listener_conn_id: the listener; by default the one that the Airbyte's connection names, else the one in
        Airflow's configuration, else none. An empty string is none.
    """
    airbyte = read_airbyte(airbyte_conn_id)
    if chosen := choose_listener(listener_conn_id, airbyte):
        try:
            return HubSettings(airbyte=airbyte, listener=read_listener(chosen))
        except (AirflowNotFoundException, SettingsError) as exc:
            _do_without(chosen, exc)
    return HubSettings(airbyte=airbyte)


async def aread_airbyte(conn_id: str) -> AirbyteSettings:
    """:func:`read_airbyte` for the triggerer's event loop."""
    connection = await _aget_connection(conn_id)
    for secret in _secrets(connection):
        await sync_to_async(mask_secret)(secret)
    return parse_airbyte(connection)


async def aread_listener(conn_id: str) -> ListenerSettings:
    """:func:`read_listener` for the triggerer's event loop."""
    return parse_listener(await _aget_connection(conn_id))


async def aread_hub(airbyte_conn_id: str, listener_conn_id: str | None = None) -> HubSettings:
    """:func:`read_hub` for the triggerer's event loop."""
    airbyte = await aread_airbyte(airbyte_conn_id)
    if chosen := choose_listener(listener_conn_id, airbyte):
        try:
            return HubSettings(airbyte=airbyte, listener=await aread_listener(chosen))
        except (AirflowNotFoundException, SettingsError) as exc:
            _do_without(chosen, exc)
    return HubSettings(airbyte=airbyte)


async def _aget_connection(conn_id: str) -> Connection:
    if hasattr(BaseHook, "aget_connection"):
        # In the triggers of `airflow dags test` it finds none that is in Airflow's database; the other one does.
        with contextlib.suppress(AirflowNotFoundException):
            return await BaseHook.aget_connection(conn_id)
    return await sync_to_async(BaseHook.get_connection)(conn_id)


def choose_listener(wanted: str | None, airbyte: AirbyteSettings) -> str | None:
    """Which listener's connection is to be used."""
    if wanted is not None:
        return wanted or None
    return airbyte.listener_conn_id or conf.get(SECTION, "listener_conn_id", fallback=None) or None


def _do_without(conn_id: str, fault: Exception) -> None:
    logger.error("the listener's connection %r can't be used, polling Airbyte instead: %s", conn_id, fault)


def parse_airbyte(connection: Connection) -> AirbyteSettings:
    """:raises SettingsError: if there is something wrong with the connection."""
    conn_id = connection.conn_id
    extra = _extra(connection)
    try:
        url = normalise_url(connection.host or "")
        login, password = (connection.login or "").strip(), _password(connection)
        credentials = None
        if login and password:
            credentials = Credentials(client_id=login, client_secret=password)
        elif login or password:
            # As the official provider does.
            logger.info("Airflow connection %r lacks login or password: asking Airbyte without authentication", conn_id)
    except SettingsError as exc:
        raise SettingsError(f"Airflow connection {conn_id!r}: {exc}") from exc
    return AirbyteSettings(
        conn_id=conn_id,
        url=url,
        credentials=credentials,
        token_url=connection.schema or None,
        proxies=tuple(_proxies(conn_id, extra.get("proxies"))),
        timeout=parse_timeout(extra.get("timeout"), f"extra 'timeout' of Airflow connection {conn_id!r}"),
        verify=_verify(conn_id, extra.get("verify")),
        client_cert=_text(conn_id, extra, "client_cert"),
        instance=_text(conn_id, extra, "instance") or "default",
        listener_conn_id=_text(conn_id, extra, "listener_conn_id"),
        web_url=_page(conn_id, extra, "web_url"),
    )


def parse_listener(connection: Connection) -> ListenerSettings:
    """:raises SettingsError: if there is something wrong with the connection."""
    conn_id = connection.conn_id
    host = (connection.host or "").strip()
    if not host:
        raise SettingsError(
            f"Airflow connection {conn_id!r} has no host: write the listener's URL, http://listener:8484"
        )
    if "://" not in host:
        host = f"{connection.schema or 'http'}://{host}" + (f":{connection.port}" if connection.port else "")
    extra = _extra(connection)
    return ListenerSettings(
        conn_id=conn_id,
        url=host.rstrip("/"),
        token=_password(connection) or None,
        verify=_verify(conn_id, extra.get("verify")),
        client_cert=_text(conn_id, extra, "client_cert"),
        dashboard_url=_page(conn_id, extra, "dashboard_url"),
    )


def parse_timeout(value: object, name: str) -> float:
    """Seconds for one request.

    :raises SettingsError: if it is no positive number.
    """
    if value is None or value == "":
        return REQUEST_SECONDS
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise SettingsError(f"{name} is not a positive number of seconds, for example 20")
    return seconds


def _extra(connection: Connection) -> dict[str, Any]:
    # Not extra_dejson, which talks to the supervisor and may not do that on an event loop.
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise SettingsError(f"the extra of Airflow connection {connection.conn_id!r} is not a JSON object")
    return extra


def _password(connection: Connection) -> str:
    """Without the line break that a secret read from a file ends with, as the listener takes its secrets."""
    return (connection.password or "").strip()


def _text(conn_id: str, extra: dict[str, Any], name: str) -> str | None:
    value = extra.get(name)
    if value is not None and not isinstance(value, str):
        raise SettingsError(f"extra {name!r} of Airflow connection {conn_id!r} is not text")
    return value or None


def _page(conn_id: str, extra: dict[str, Any], name: str) -> str | None:
    """The address of a page for people. It ends up in links, so nothing secret may be in it."""
    value = (_text(conn_id, extra, name) or "").strip()
    if value and re.fullmatch(r"https?://[^\s@?#\\]+", value) is None:
        raise SettingsError(
            f"extra {name!r} of Airflow connection {conn_id!r} is no web address without user name and query, "
            "for example https://airbyte.example.com"
        )
    return value.rstrip("/") or None


def _verify(conn_id: str, value: object) -> bool | str:
    if value is None or value == "":
        return True
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), value)
    if isinstance(value, bool):
        return value
    raise SettingsError(
        f"extra 'verify' of Airflow connection {conn_id!r} is neither true nor false nor a file of certificates"
    )


def _proxies(conn_id: str, value: object) -> Iterator[tuple[str, str]]:
    if not value:
        return
    if isinstance(value, str) and value.lstrip().startswith("{"):
        # An object, as it is written into the field of Airflow's form.
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    proxies = {"all": value} if isinstance(value, str) else value
    if not isinstance(proxies, dict) or not all(isinstance(url, str) and "://" in url for url in proxies.values()):
        raise SettingsError(
            f"extra 'proxies' of Airflow connection {conn_id!r} is neither a proxy's URL nor an object of such URLs "
            'by scheme, for example {"https": "http://proxy:3128"}'
        )
    for scheme, url in proxies.items():
        yield (scheme if "://" in scheme else f"{scheme}://"), url


def _secrets(connection: Connection) -> Iterator[str]:
    """What Airflow does not mask by itself: it knows the password, but not those within proxy URLs."""
    if connection.password:
        yield from {connection.password, _password(connection)} - {""}
    for _, url in _proxies(connection.conn_id, _extra(connection).get("proxies")):
        login, at, _ = url.rpartition("@")
        if at and ":" in login.partition("://")[2]:
            password = login.partition("://")[2].partition(":")[2]
            # As it stands in the URL, and as it is.
            yield from {password, unquote(password)}

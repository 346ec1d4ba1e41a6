"""The settings in Airflow connections of the types ``airbyte`` and ``airbyte_events``."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airbyte_events.airbyte import Credentials, normalise_url
from airbyte_events.airbyte.gateway import parse_headers, secrets_in
from airbyte_events.errors import SettingsError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AirbyteSettings:
    """The settings of an Airflow connection of type ``airbyte``.

    :param conn_id: the connection's id in Airflow.
    :param url: the API's base URL, normalised.
    :param credentials: None for an Airbyte without authentication.
    :param token_url: the URL for tokens; None: the default URL.
    :param proxies: proxy URLs by URL pattern (``http://``, ``https://``, ``all://``).
    :param headers: names and values for a gateway, sent to the origin of ``url`` only.
    :param timeout: seconds for one request.
    :param verify: whether to check the server's certificate, or a file or folder of trusted certificates.
    :param client_cert: a file with a certificate and its key, for a server that requires one.
    :param instance: the name of this Airbyte in the listener's settings.
    :param listener_conn_id: the Airflow connection of the listener, if any.
    :param web_url: the URL of the web app; None: derived from the API's URL.
    """

    conn_id: str
    url: str
    credentials: Credentials | None = None
    token_url: str | None = None
    proxies: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout: float = REQUEST_SECONDS
    verify: bool | str = True
    client_cert: str | None = None
    instance: str = "default"
    listener_conn_id: str | None = None
    web_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """The settings of an Airflow connection of type ``airbyte_events``.

    :param conn_id: the connection's id in Airflow.
    :param url: the listener's URL.
    :param token: one of the listener's API tokens.
    :param verify: see :class:`AirbyteSettings`, as for ``client_cert``.
    :param dashboard_url: the URL of its dashboard; None: ``url``.
    """

    conn_id: str
    url: str
    token: str | None = field(default=None, repr=False)
    verify: bool | str = True
    client_cert: str | None = None
    dashboard_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """An Airbyte, and its listener if there is one."""

    airbyte: AirbyteSettings
    listener: ListenerSettings | None = None


def parse_airbyte(connection: Connection) -> AirbyteSettings:
    """Parse a connection of type ``airbyte``.

    :raises SettingsError: if a field is wrong; the message names it.
    """
    conn_id = connection.conn_id
    extra = _Extra(connection)
    try:
        url = normalise_url(_with_port(connection.host or "", connection.port))
        login, password = (connection.login or "").strip(), _password(connection)
        credentials = None
        if login and password:
            credentials = Credentials(client_id=login, client_secret=password)
        elif login or password:
            # As in the official provider.
            logger.info("no authentication with Airbyte: Airflow connection %r has no login or no password", conn_id)
    except SettingsError as exc:
        raise SettingsError(f"Airflow connection {conn_id!r}: {exc}") from exc
    return AirbyteSettings(
        conn_id=conn_id,
        url=url,
        credentials=credentials,
        token_url=connection.schema or None,
        proxies=tuple(extra.proxies()),
        headers=tuple(extra.headers(authorized=credentials is not None).items()),
        timeout=parse_timeout(extra.fields.get("timeout"), extra.named("timeout")),
        verify=extra.verify(),
        client_cert=extra.text("client_cert"),
        instance=extra.text("instance") or "default",
        listener_conn_id=extra.text("listener_conn_id"),
        web_url=extra.page("web_url"),
    )


def parse_listener(connection: Connection) -> ListenerSettings:
    """Parse a connection of type ``airbyte_events``; raises as :func:`parse_airbyte` does."""
    conn_id = connection.conn_id
    host = (connection.host or "").strip()
    if not host:
        raise SettingsError(
            f"Airflow connection {conn_id!r} has no host: write the listener's URL, http://listener:8484"
        )
    if "://" not in host:
        host = f"{connection.schema or 'http'}://{host}"
    host = _with_port(host, connection.port)
    extra = _Extra(connection)
    return ListenerSettings(
        conn_id=conn_id,
        url=host.rstrip("/"),
        token=_password(connection) or None,
        verify=extra.verify(),
        client_cert=extra.text("client_cert"),
        dashboard_url=extra.page("dashboard_url"),
    )


def _with_port(url: str, port: int | None) -> str:
    """Return the URL, with the port of the connection's own field if the URL has none."""
    try:
        parts = urlsplit(url.strip())
        if not port or not parts.hostname or parts.port is not None:
            return url
    except ValueError:
        return url
    return parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{port}").geturl()


def parse_timeout(value: object, name: str) -> float:
    """Return the seconds for one request, :data:`REQUEST_SECONDS` by default.

    :raises SettingsError: if the value is not a positive number.
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


def secrets(connection: Connection) -> Iterator[str]:
    """Return secrets that Airflow may not mask by itself: the stripped password, headers, and passwords in proxy URLs.

    :raises SettingsError: if the extra is wrong.
    """
    if connection.password:
        yield from {connection.password, _password(connection)} - {""}
    extra = _Extra(connection)
    yield from secrets_in(extra.headers(authorized=False).values())
    for _, url in extra.proxies():
        login, at, _ = url.rpartition("@")
        if at and ":" in login.partition("://")[2]:
            password = login.partition("://")[2].partition(":")[2]
            yield from {password, unquote(password)}


def _password(connection: Connection) -> str:
    # Secrets that were read from files may end with a line break.
    return (connection.password or "").strip()


class _Extra:
    def __init__(self, connection: Connection) -> None:
        self._conn_id = connection.conn_id
        # Not extra_dejson, which takes an invalid extra for an empty one.
        try:
            fields = json.loads(connection.extra or "{}")
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise SettingsError(f"the extra of Airflow connection {self._conn_id!r} is not a JSON object")
        self.fields: dict[str, Any] = fields

    def named(self, name: str) -> str:
        return f"extra {name!r} of Airflow connection {self._conn_id!r}"

    def text(self, name: str) -> str | None:
        value = self.fields.get(name)
        if value is not None and not isinstance(value, str):
            raise SettingsError(f"{self.named(name)} is not text")
        return value or None

    def page(self, name: str) -> str | None:
        # It is displayed in links, so it must not contain secrets.
        value = (self.text(name) or "").strip()
        if value and re.fullmatch(r"https?://[^\s@?#\\]+", value) is None:
            raise SettingsError(
                f"{self.named(name)} is no web address without user name and query: write for example "
                "https://airbyte.example.com"
            )
        return value.rstrip("/") or None

    def verify(self) -> bool | str:
        value = self.fields.get("verify")
        if value is None or value == "":
            return True
        if isinstance(value, str):
            return {"true": True, "false": False}.get(value.lower(), value)
        if isinstance(value, bool):
            return value
        raise SettingsError(f"{self.named('verify')} is neither true nor false nor a file or folder of certificates")

    def _object(self, name: str) -> Any:
        value = self.fields.get(name)
        if isinstance(value, str) and value.lstrip().startswith("{"):
            # Airflow's form stores an object as text.
            with contextlib.suppress(ValueError):
                return json.loads(value)
        return value

    def headers(self, *, authorized: bool) -> dict[str, str]:
        value = self._object("headers") or {}
        if isinstance(value, dict):
            value = "\n".join(f"{name}: {each}" for name, each in value.items())
        try:
            if not isinstance(value, str):
                raise ValueError("neither an object nor lines of the form Name: value")
            return parse_headers(filter(None, map(str.strip, value.splitlines())), authorized=authorized)
        except ValueError as exc:
            raise SettingsError(
                f'{self.named("headers")}: {exc}; for example {{"CF-Access-Client-Id": "0b1c.access"}}'
            ) from None

    def proxies(self) -> Iterator[tuple[str, str]]:
        value = self._object("proxies")
        if not value:
            return
        proxies = {"all": value} if isinstance(value, str) else value
        if not isinstance(proxies, dict) or not all(isinstance(url, str) and "://" in url for url in proxies.values()):
            raise SettingsError(
                f"{self.named('proxies')} is neither a proxy URL nor an object of proxy URLs by scheme, for example "
                '{"https": "http://proxy:3128"}'
            )
        for scheme, url in proxies.items():
            yield (scheme if "://" in scheme else f"{scheme}://"), url

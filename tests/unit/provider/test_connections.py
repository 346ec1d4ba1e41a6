"""Airflow connections become settings, or a message that says what to write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import Connection

try:
    from airflow.sdk.log import redact  # type: ignore[attr-defined]
except ImportError:  # Airflow 3.0
    from airflow.sdk.execution_time.secrets_masker import redact  # type: ignore[no-redef]

from airbyte_events.airbyte import Credentials
from airbyte_events.errors import SettingsError
from airbyte_events_provider.connections.read import choose_listener, read_airbyte
from airbyte_events_provider.connections.settings import AirbyteSettings, parse_airbyte, parse_listener, secrets


def connection(extra: object = None, **fields: Any) -> Connection:
    given = None if extra is None else extra if isinstance(extra, str) else json.dumps(extra)
    return Connection(conn_id="c", conn_type="airbyte", extra=given, **({"host": "http://airbyte:8000"} | fields))


def test_the_least() -> None:
    assert parse_airbyte(connection()) == AirbyteSettings(conn_id="c", url="http://airbyte:8000/api/public/v1")


def test_all() -> None:
    settings = parse_airbyte(
        connection(
            host="https://api.airbyte.com/v1/",
            login="id",
            password="secret",
            schema="v1/applications/token",
            extra={
                "proxies": {"https": "http://user:pass@proxy:3128"},
                "timeout": "7.5",
                "verify": "/ca.pem",
                "client_cert": "/me.pem",
                "instance": "eu",
                "listener_conn_id": "listener",
                "web_url": "https://airbyte.example.com/",
            },
        )
    )
    assert settings == AirbyteSettings(
        conn_id="c",
        url="https://api.airbyte.com/v1",
        credentials=Credentials(client_id="id", client_secret="secret"),
        token_url="v1/applications/token",
        proxies=(("https://", "http://user:pass@proxy:3128"),),
        timeout=7.5,
        verify="/ca.pem",
        client_cert="/me.pem",
        instance="eu",
        listener_conn_id="listener",
        web_url="https://airbyte.example.com",
    )
    assert "secret" not in repr(settings)
    assert "pass" not in repr(settings)


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("http://airbyte", 8000, "http://airbyte:8000/api/public/v1"),
        ("http://airbyte:/", 8000, "http://airbyte:8000/api/public/v1"),
        ("https://[::1]/api/public/v1", 8443, "https://[::1]:8443/api/public/v1"),
        ("http://airbyte:8001/", 8000, "http://airbyte:8001/api/public/v1"),
        ("http://airbyte:8001/", None, "http://airbyte:8001/api/public/v1"),
        ("http://airbyte:8001/", 0, "http://airbyte:8001/api/public/v1"),
    ],
)
def test_a_given_port_is_used_unless_the_url_has_one(host: str, port: int | None, url: str) -> None:
    assert parse_airbyte(connection(host=host, port=port)).url == url


def test_a_port_does_not_repair_a_url() -> None:
    with pytest.raises(SettingsError, match="the Airbyte URL has no scheme: write http://airbyte"):
        parse_airbyte(connection(host="airbyte", port=8000))
    with pytest.raises(SettingsError, match="has no usable host and port"):
        parse_airbyte(connection(host="http://[airbyte", port=8000))


def test_one_proxy_for_all() -> None:
    assert parse_airbyte(connection({"proxies": "http://proxy"})).proxies == (("all://", "http://proxy"),)


@pytest.mark.parametrize(
    "written", [{"X-Gate": "canary-value"}, '{"X-Gate": "canary-value"}', "X-Gate: canary-value\n"]
)
def test_headers(written: object) -> None:
    given = connection({"headers": written})
    settings = parse_airbyte(given)
    assert settings.headers == (("X-Gate", "canary-value"),)
    assert "canary" not in repr(settings)
    assert list(secrets(given)) == ["canary-value"]


def test_proxies_as_the_form_has_them() -> None:
    written = '{"http": "http://a:1", "https": "http://b:2"}'
    assert parse_airbyte(connection({"proxies": written})).proxies == (
        ("http://", "http://a:1"),
        ("https://", "http://b:2"),
    )


def test_what_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = json.dumps({"proxies": {"https": "http://user:pass%40word@proxy:3128"}})
    monkeypatch.setenv(
        "AIRFLOW_CONN_MASKED",
        json.dumps(
            {"conn_type": "airbyte", "host": "http://a", "login": "i", "password": "client-s3cret", "extra": extra}
        ),
    )
    read_airbyte("masked")
    assert redact("client-s3cret, pass%40word and pass@word") == "***, *** and ***"


@pytest.mark.parametrize(
    ("value", "verify"), [("false", False), (False, False), ("", True), (None, True), ("/ca", "/ca")]
)
def test_verify(value: object, verify: object) -> None:
    assert parse_airbyte(connection({"verify": value})).verify == verify


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"host": ""}, "connection 'c': the Airbyte URL is empty: write for example http"),
        ({"host": "airbyte:8000"}, "has no scheme: write http://airbyte:8000"),
        ({"extra": "{"}, "the extra of Airflow connection 'c' is not a JSON object"),
        ({"extra": "[]"}, "is not a JSON object"),
        ({"extra": {"timeout": 0}}, "extra 'timeout' of Airflow connection 'c' is not a positive number"),
        ({"extra": {"timeout": "soon"}}, "is not a positive number"),
        ({"extra": {"headers": 1}}, "extra 'headers' of Airflow connection 'c': neither an object nor lines"),
        ({"extra": {"headers": {"Host": "x"}}}, "the header Host can't be set"),
        ({"extra": {"proxies": 1}}, "extra 'proxies' of Airflow connection 'c' is neither"),
        ({"extra": {"proxies": {"https": "proxy:1"}}}, "is neither"),
        ({"extra": {"verify": 1}}, "extra 'verify' of"),
        ({"extra": {"client_cert": 1}}, "extra 'client_cert' of Airflow connection 'c' is not text"),
        ({"extra": {"web_url": "airbyte"}}, "extra 'web_url' of Airflow connection 'c' is no web address"),
        ({"extra": {"web_url": "https://user:secret@airbyte"}}, "without user name and query"),
        ({"extra": {"web_url": "javascript:alert()"}}, "is no web address"),
        ({"extra": {"instance": 1}}, "extra 'instance' of Airflow connection 'c' is not text"),
    ],
)
def test_faults(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingsError) as info:
        parse_airbyte(connection(**fields))
    assert fault in str(info.value)
    assert "secret@" not in str(info.value)


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "http://listener:8484/"}, "http://listener:8484"),
        ({"host": "listener", "port": 8484}, "http://listener:8484"),
        ({"host": "listener", "schema": "https"}, "https://listener"),
        ({"host": "https://listener/events", "port": 8484}, "https://listener:8484/events"),
        ({"host": "http://listener:8484", "port": 9}, "http://listener:8484"),
        ({"host": "listener:8484", "port": 9}, "http://listener:8484"),
    ],
)
def test_a_listener(fields: dict[str, Any], url: str) -> None:
    settings = parse_listener(connection(password="token", **fields))
    assert (settings.url, settings.token) == (url, "token")
    assert "token" not in repr(settings).replace("token=", "")


def test_a_listener_that_people_reach_elsewhere() -> None:
    settings = parse_listener(connection({"dashboard_url": "https://events.example.com/"}, host="http://listener"))
    assert settings.dashboard_url == "https://events.example.com"


def test_a_listener_without_a_host() -> None:
    with pytest.raises(SettingsError, match="has no host: write the listener's URL"):
        parse_listener(connection(host=None))


@pytest.mark.parametrize(
    ("wanted", "named", "configured", "chosen"),
    [
        (None, None, None, None),
        (None, None, "of_config", "of_config"),
        (None, "of_connection", "of_config", "of_connection"),
        ("of_task", "of_connection", "of_config", "of_task"),
        ("", "of_connection", "of_config", None),
    ],
)
def test_which_listener(
    wanted: str | None, named: str | None, configured: str | None, chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if configured:
        monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__LISTENER_CONN_ID", configured)
    airbyte = AirbyteSettings(conn_id="c", url="http://airbyte/api/public/v1", listener_conn_id=named)
    assert choose_listener(wanted, airbyte) == chosen


def test_an_airbyte_by_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BY_URI", "airbyte://id:secret@https%3A%2F%2Fairbyte%2Fapi%2Fpublic%2Fv1%2F")
    settings = read_airbyte("by_uri")
    assert settings.url == "https://airbyte/api/public/v1"
    assert settings.credentials == Credentials(client_id="id", client_secret="secret")


@pytest.mark.parametrize("fields", [{"login": "id"}, {"password": "secret"}, {"login": " ", "password": "secret"}])
def test_half_of_the_credentials_is_none_as_for_the_official_hook(fields: dict[str, str]) -> None:
    assert parse_airbyte(connection({}, **fields)).credentials is None


def test_the_line_break_after_a_secret_read_from_a_file_is_no_part_of_it() -> None:
    credentials = parse_airbyte(connection({}, login="id\n", password="secret\r\n")).credentials
    assert credentials is not None
    assert (credentials.client_id, credentials.client_secret) == ("id", "secret")


def test_nor_is_that_after_the_token_of_a_listener() -> None:
    fields = {"host": "http://listener:8484", "password": "token\n"}
    assert parse_listener(connection({}, **fields)).token == "token"

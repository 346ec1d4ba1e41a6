"""The settings of a listener."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationInfo, field_validator

from airbyte_events.listener.settings.declaration import INSTANCE_NAME, setting
from airbyte_events.listener.settings.instance import InstanceSettings
from airbyte_events.listener.settings.values import (
    A_LIST,
    A_PORT,
    A_TEXT,
    AN_INTERVAL,
    Address,
    Days,
    Events,
    ExistingFile,
    Host,
    Lower,
    Networks,
    Port,
    Seconds,
    Sendable,
    Store,
    Tokens,
    check_pair,
    is_loopback,
)
from airbyte_events.store.sqlite.location import SQLiteLocation

NOT_A_NAME = "an instance's name has 1 to 32 characters: a-z, 0-9, _ and -, the first one a letter or digit"


class Settings(BaseModel):
    """All settings of a listener. :func:`load` reads them from the environment and a file.

    :raises pydantic.ValidationError: if a value is wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True)

    config: Path | None = setting(
        None, meaning="A TOML file with settings.", must_be=A_TEXT, example="/etc/airbyte-events.toml"
    )
    instances: dict[str, InstanceSettings] = setting(
        dict,
        meaning="The Airbyte instances, by name.",
        must_be="not a table of instances",
        example="[instances.default]",
    )
    store: Store = setting(
        lambda: SQLiteLocation(user_data_path("airbyte-events", appauthor=False) / "events.db"),
        meaning="The store of events: `sqlite:///relative.db`, `sqlite:////absolute.db`, "
        "`postgresql://user:password@host/database` ([PostgreSQL](postgresql.md)), or `memory:`, which is "
        "lost when the process ends.",
        must_be=A_TEXT,
        example="sqlite:////var/lib/airbyte-events/events.db",
        by_default="a file in the user's data folder",
    )
    host: Host = setting(
        "127.0.0.1",
        meaning="The address to listen on. An address that other machines can reach requires `API_TOKENS` and "
        "`WEBHOOK_TOKENS`.",
        must_be="not an IP address or a host name",
        example="192.0.2.10",
    )
    port: Port = setting(8484, meaning="The port to listen on; 0 for a free one.", must_be=A_PORT, example="8484")
    webhook_host: Host | None = setting(
        None,
        meaning="A separate address for the webhook receiver, so that Airbyte can reach nothing else. Requires "
        "`WEBHOOK_PORT`.",
        must_be="not an IP address or a host name",
        example="192.0.2.10",
        by_default="`HOST`",
    )
    webhook_port: Port | None = setting(
        None,
        meaning="A separate port for the webhook receiver.",
        must_be=A_PORT,
        example="8485",
        by_default="`PORT`, not separate",
    )
    api_tokens: Tokens = setting(
        (),
        meaning="Tokens for the API, sent as `Authorization: Bearer`. Several are valid at once, so that they can be "
        "rotated.",
        must_be=A_LIST,
        example="the output of: openssl rand -hex 32",
        by_default="generated at the first start, on loopback only",
    )
    webhook_tokens: Tokens = setting(
        (),
        meaning="Tokens for the webhook receiver: the last part of the webhook URL. Several are valid at once.",
        must_be=A_LIST,
        example="the output of: openssl rand -hex 32",
        by_default="generated at the first start, on loopback only",
    )
    metrics_tokens: Tokens = setting(
        (),
        meaning="Tokens for `/metrics`, sent as `Authorization: Bearer`. Several are valid at once.",
        must_be=A_LIST,
        example="the output of: openssl rand -hex 32",
        by_default="none: `/metrics` is public",
    )
    webhook_allow: Networks = setting(
        (),
        meaning="The networks that may send webhooks; the receiver answers 404 to all others.",
        must_be=A_LIST,
        example="192.0.2.0/24,2001:db8::/32",
        by_default="all",
    )
    trusted_proxies: Networks = setting(
        (),
        meaning="The proxies whose `X-Forwarded-For` header is trusted for the client's address.",
        must_be=A_LIST,
        example="192.0.2.7",
        by_default="none",
    )
    tls_certfile: ExistingFile | None = setting(
        None, meaning="Serve HTTPS with this certificate chain (PEM).", must_be=A_TEXT, example="/etc/ssl/events.pem"
    )
    tls_keyfile: ExistingFile | None = setting(
        None, meaning="The certificate's private key (PEM).", must_be=A_TEXT, example="/etc/ssl/events.key"
    )
    poll_interval: Seconds = setting(
        10.0,
        meaning="Seconds between two polls of an instance while jobs are watched and webhooks are not proven to work.",
        must_be=AN_INTERVAL,
        example="10",
    )
    poll_interval_proven: Seconds = setting(
        60.0,
        meaning="The same once webhooks are proven to work: they reported the last completions before a poll.",
        must_be=AN_INTERVAL,
        example="60",
    )
    poll_interval_idle: Seconds = setting(
        300.0, meaning="The same while no job is watched.", must_be=AN_INTERVAL, example="300"
    )
    retain_days: Days = setting(
        30.0,
        meaning="Days to keep events and settled notifications. The latest state of each job is always kept.",
        must_be="not a number of days from 0.01 to 36500",
        example="90",
    )
    retain_events: Events = setting(
        1_000_000,
        meaning="The largest number of events to keep, whatever their age.",
        must_be="not a whole number of 1 or more",
        example="5000000",
    )
    public_url: Address | None = setting(
        None,
        meaning="The address at which Airbyte reaches the listener: the part of the webhook URL before `/webhooks/`. "
        "`airbyte-events webhooks` and `doctor` use it.",
        must_be=A_TEXT,
        example="https://events.example.com",
    )
    listener_url: Address | None = setting(
        None,
        meaning="The address of the listener for commands such as `airbyte-events tail`. `serve` ignores it.",
        must_be=A_TEXT,
        example="https://events.example.com",
        by_default="the listener of these settings, on this machine",
    )
    listener_token: Sendable | None = setting(
        None,
        meaning="The token for those commands: one of that listener's `API_TOKENS`.",
        must_be=A_TEXT,
        example="printed by serve when it generated its tokens",
        by_default="the first of `API_TOKENS`, on this machine",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Lower] = setting(
        "info",
        meaning="The minimum log level: `debug`, `info`, `warning` or `error`.",
        must_be="not one of debug, info, warning, error",
        example="info",
    )
    log_format: Annotated[Literal["console", "json"], Lower] = setting(
        "console",
        meaning="The log format: `console` for people, `json` for one JSON object per line "
        "([Operations](operations.md)).",
        must_be="not one of console, json",
        example="json",
    )

    @property
    def webhook_apart(self) -> tuple[str, int] | None:
        """The address and port of the webhook receiver, if it has its own."""
        return None if self.webhook_port is None else (self.webhook_host or self.host, self.webhook_port)

    @field_validator("instances")
    @classmethod
    def _named(cls, instances: dict[str, InstanceSettings], info: ValidationInfo) -> dict[str, InstanceSettings]:
        if not instances and (info.context or {}).get("listens", True):
            raise ValueError("not set, and the listener needs an Airbyte instance")
        if not all(INSTANCE_NAME.fullmatch(name) for name in instances):
            raise ValueError(NOT_A_NAME)
        return instances

    @field_validator("webhook_port")
    @classmethod
    def _apart(cls, port: int | None, info: ValidationInfo) -> int | None:
        host = info.data.get("webhook_host")
        if port is None and host is not None:
            raise ValueError("not set, but webhook_host is, which requires a port")
        if port and port == info.data.get("port") and host in {None, info.data.get("host")}:
            raise ValueError("the same address and port as host and port: remove both or choose another port")
        return port

    @field_validator("api_tokens")
    @classmethod
    def _guard_api(cls, tokens: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        host = info.data.get("host")
        if not tokens and host is not None and not is_loopback(host):
            raise ValueError("not set, but host is an address that other machines can reach, which requires tokens")
        return tokens

    @field_validator("webhook_tokens")
    @classmethod
    def _guard_receiver(cls, tokens: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        host = info.data.get("webhook_host") or info.data.get("host")
        if not tokens and host is not None and not is_loopback(host):
            raise ValueError("not set, but other machines can reach the webhook receiver, which requires tokens")
        # Everybody who may configure Airbyte can read the webhook URL there: its token must not open the API.
        if set(tokens) & set(info.data.get("api_tokens", ())):
            raise ValueError("holds a token that is an API token; use each token for one purpose")
        return tokens

    @field_validator("metrics_tokens")
    @classmethod
    def _guard_metrics(cls, tokens: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        if set(tokens) & {*info.data.get("api_tokens", ()), *info.data.get("webhook_tokens", ())}:
            raise ValueError("holds a token that is an API or webhook token; use each token for one purpose")
        return tokens

    @field_validator("tls_keyfile")
    @classmethod
    def _with_certificate(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        check_pair(file, info, "tls_certfile")
        return file

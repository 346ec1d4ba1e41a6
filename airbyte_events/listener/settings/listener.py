"""The settings of a listener."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from airbyte_events.listener.settings.declaration import setting
from airbyte_events.listener.settings.instance import InstanceSettings
from airbyte_events.listener.settings.sources import INSTANCE_NAME, NOT_A_NAME, PREFIX, Environment, TomlFile
from airbyte_events.listener.settings.store_url import StoreLocation
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
    is_loopback,
    together,
)


class Settings(BaseSettings):
    """All settings of a listener.

    Keyword arguments stand above the environment (``AIRBYTE_EVENTS_*``), and that above the file that ``config``
    names. :func:`load` does the same and raises errors that people can read.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True, env_prefix=PREFIX
    )
    _SOURCES: ClassVar[tuple[type[Environment | TomlFile], ...]] = (Environment, TomlFile)

    config: Path | None = setting(
        None, meaning="A TOML file with settings.", must_be=A_TEXT, example="/etc/airbyte-events.toml"
    )
    instances: dict[str, InstanceSettings] = setting(
        dict, meaning="The Airbytes, by name.", must_be="not a table of instances", example="[instances.default]"
    )
    store: Store = setting(
        StoreLocation.default,
        meaning="Where events are kept: `sqlite:///relative.db`, `sqlite:////absolute.db`, "
        "`postgresql://user:password@host/database` ([PostgreSQL](postgresql.md)), or `memory:` for as long as the "
        "process lives.",
        must_be=A_TEXT,
        example="sqlite:////var/lib/airbyte-events/events.db",
        by_default="a file in the user's data folder",
    )
    host: Host = setting(
        "127.0.0.1",
        meaning="The address to listen on. One that other machines reach wants `API_TOKENS` and `WEBHOOK_TOKENS`.",
        must_be="not an IP address or a host name",
        example="192.0.2.10",
    )
    port: Port = setting(8484, meaning="The port to listen on; 0 for a free one.", must_be=A_PORT, example="8484")
    webhook_host: Host | None = setting(
        None,
        meaning="Another address for the webhook receiver, so that Airbyte reaches it and nothing else. Wants "
        "`WEBHOOK_PORT`.",
        must_be="not an IP address or a host name",
        example="192.0.2.10",
        by_default="`HOST`",
    )
    webhook_port: Port | None = setting(
        None,
        meaning="Another port for the webhook receiver.",
        must_be=A_PORT,
        example="8485",
        by_default="`PORT`, the receiver is not apart",
    )
    api_tokens: Tokens = setting(
        (),
        meaning="Who shows one of these as `Authorization: Bearer` may read events and ask for jobs. Several are valid "
        "at once, so that they can be changed.",
        must_be=A_LIST,
        example="what this prints: openssl rand -hex 32",
        by_default="made at start, on loopback only",
    )
    webhook_tokens: Tokens = setting(
        (),
        meaning="The last part of the URL that Airbyte sends webhooks to. Several are valid at once.",
        must_be=A_LIST,
        example="what this prints: openssl rand -hex 32",
        by_default="made at start, on loopback only",
    )
    metrics_tokens: Tokens = setting(
        (),
        meaning="Who shows one of these as `Authorization: Bearer` may read `/metrics`. Several are valid at once.",
        must_be=A_LIST,
        example="what this prints: openssl rand -hex 32",
        by_default="none, anybody may",
    )
    webhook_allow: Networks = setting(
        (),
        meaning="Networks that webhooks may come from; to all others the receiver is not there.",
        must_be=A_LIST,
        example="192.0.2.0/24,2001:db8::/32",
        by_default="all",
    )
    trusted_proxies: Networks = setting(
        (),
        meaning="Proxies whose `X-Forwarded-For` tells where a request comes from.",
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
        meaning="Seconds between two looks at an instance while jobs are watched and webhooks have not proven that "
        "they come.",
        must_be=AN_INTERVAL,
        example="10",
    )
    poll_interval_proven: Seconds = setting(
        60.0,
        meaning="The same once webhooks announced the last ends before a look found them.",
        must_be=AN_INTERVAL,
        example="60",
    )
    poll_interval_idle: Seconds = setting(
        300.0, meaning="The same while no job is watched.", must_be=AN_INTERVAL, example="300"
    )
    retain_days: Days = setting(
        30.0,
        meaning="Days for which events and settled notifications are kept. The latest state of each job always is.",
        must_be="not a number of days from 0.01 to 36500",
        example="90",
    )
    retain_events: Events = setting(
        1_000_000,
        meaning="How many events are kept at most, whatever their age.",
        must_be="not a whole number from 1 on",
        example="5000000",
    )
    public_url: Address | None = setting(
        None,
        meaning="Where Airbyte reaches the listener: what stands before `/webhooks/` in the URL that it sends to. "
        "`airbyte-events webhooks` and `doctor` take it from here.",
        must_be=A_TEXT,
        example="https://events.example.com",
    )
    listener_url: Address | None = setting(
        None,
        meaning="The listener that commands such as `airbyte-events tail` ask. `serve` passes it over.",
        must_be=A_TEXT,
        example="https://events.example.com",
        by_default="the one of these settings, on this machine",
    )
    listener_token: Sendable | None = setting(
        None,
        meaning="What those commands show it: one of its `API_TOKENS`.",
        must_be=A_TEXT,
        example="what serve printed when it made its tokens",
        by_default="the first of `API_TOKENS`, on this machine",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Lower] = setting(
        "info",
        meaning="The least grave log lines to write: `debug`, `info`, `warning` or `error`.",
        must_be="not one of debug, info, warning, error",
        example="info",
    )
    log_format: Annotated[Literal["console", "json"], Lower] = setting(
        "console",
        meaning="How to write them: `console` for people, `json` for an object a line ([Operations](operations.md)).",
        must_be="not one of console, json",
        example="json",
    )

    @classmethod
    def exactly(cls, **values: Any) -> Settings:
        """These values and the defaults, whatever environment and files say.

        :raises pydantic.ValidationError: if one is wrong.
        """
        return _Exactly(**values)

    @property
    def webhook_apart(self) -> tuple[str, int] | None:
        """Address and port of the webhook receiver, if it does not share those of everything else."""
        return None if self.webhook_port is None else (self.webhook_host or self.host, self.webhook_port)

    @field_validator("instances")
    @classmethod
    def _named(cls, instances: dict[str, InstanceSettings]) -> dict[str, InstanceSettings]:
        if not instances:
            raise ValueError("not set, and there is no Airbyte to listen for without it")
        if not all(INSTANCE_NAME.fullmatch(name) for name in instances):
            raise ValueError(NOT_A_NAME)
        return instances

    @field_validator("webhook_port")
    @classmethod
    def _apart(cls, port: int | None, info: ValidationInfo) -> int | None:
        host = info.data.get("webhook_host")
        if port is None and host is not None:
            raise ValueError("not set, and an address of the receiver's own wants a port of its own")
        if port and port == info.data.get("port") and host in {None, info.data.get("host")}:
            raise ValueError("the same address and port as for everything else: leave both out or take another port")
        return port

    @field_validator("api_tokens")
    @classmethod
    def _guard_api(cls, tokens: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        host = info.data.get("host")
        if not tokens and host is not None and not is_loopback(host):
            raise ValueError(
                "not set, and host is an address that other machines reach: without tokens they are not served"
            )
        return tokens

    @field_validator("webhook_tokens")
    @classmethod
    def _guard_receiver(cls, tokens: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        host = info.data.get("webhook_host") or info.data.get("host")
        if not tokens and host is not None and not is_loopback(host):
            raise ValueError("not set, and the receiver's host is an address that other machines reach")
        # Who may configure Airbyte reads the receiver's URL there, and may do no more with it than send webhooks.
        if set(tokens) & set(info.data.get("api_tokens", ())):
            raise ValueError("holds a token that is an API token, too: every token opens one door")
        return tokens

    @field_validator("metrics_tokens")
    @classmethod
    def _guard_metrics(cls, tokens: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        # Who may configure Prometheus reads them there.
        if set(tokens) & {*info.data.get("api_tokens", ()), *info.data.get("webhook_tokens", ())}:
            raise ValueError("holds a token that opens something else, too: every token opens one door")
        return tokens

    @field_validator("tls_keyfile")
    @classmethod
    def _with_certificate(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        together(file, info, "tls_certfile")
        return file

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, *(source(settings_cls, InstanceSettings) for source in cls._SOURCES)


class _Exactly(Settings):
    _SOURCES = ()

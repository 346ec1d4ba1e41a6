"""The settings of a listener."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from platformdirs import user_data_path
from pydantic import SecretStr, ValidationInfo, field_validator

from airbyte_events.listener.settings import values
from airbyte_events.listener.settings.declaration import INSTANCE_NAME, CompleteError, Declared, setting
from airbyte_events.listener.settings.instance import InstanceSettings
from airbyte_events.listener.settings.notify import NotifySettings
from airbyte_events.store.sqlite.store import SQLiteLocation

NOT_A_NAME = "an instance's name has 1 to 32 characters: a-z, 0-9, _ and -, the first one a letter or digit"

OPENSSL = "the output of: openssl rand -hex 32"
GENERATED = "generated at the first start, on loopback only"

_OTHER_TOKENS = {
    # Everybody who may configure Airbyte can read the webhook URL there: its token must not open the API.
    "webhook_tokens": "API",
    "metrics_tokens": "API or webhook",
    "operator_tokens": "API, webhook or metrics",
}
"""Settings, and of which kinds their tokens must not be: those of the settings before them."""


class Settings(Declared):
    """All settings of a listener. :func:`load` reads them from the environment and a file.

    :raises pydantic.ValidationError: if a value is wrong.
    """

    config: Path | None = setting(None, example="/etc/airbyte-events.toml")
    """A TOML file with settings."""
    instances: dict[str, InstanceSettings] = setting(dict, example="[instances.default]")
    """The Airbyte instances, by name."""
    notify: tuple[NotifySettings, ...] = setting((), example="[[notify]]")
    """The targets of outgoing notifications."""
    store: values.Store = setting(
        lambda: SQLiteLocation(user_data_path("airbyte-events", appauthor=False) / "events.db"),
        example="sqlite:////var/lib/airbyte-events/events.db",
        by_default="a file in the user's data folder",
    )
    """The store of events: `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://user:password@host/database`
    ([PostgreSQL](postgresql.md)), or `memory:`, which is lost when the process ends."""
    host: values.Host = setting("127.0.0.1", example="192.0.2.10")
    """The address to listen on. An address that other machines can reach requires `API_TOKENS` and `WEBHOOK_TOKENS`."""
    port: values.Port = setting(8484, example="8484")
    """The port to listen on; 0 for a free one."""
    webhook_host: values.Host | None = setting(None, example="192.0.2.10", by_default="`HOST`")
    """A separate address for the webhook receiver, so that Airbyte can reach nothing else. Requires `WEBHOOK_PORT`."""
    webhook_port: values.Port | None = setting(None, example="8485", by_default="`PORT`, not separate")
    """A separate port for the webhook receiver."""
    api_tokens: values.Tokens = setting((), example=OPENSSL, by_default=GENERATED)
    """Tokens for the API, sent as `Authorization: Bearer`. Several are valid at once, so that they can be rotated."""
    webhook_tokens: values.Tokens = setting((), example=OPENSSL, by_default=GENERATED)
    """Tokens for the webhook receiver: the last part of the webhook URL. Several are valid at once."""
    metrics_tokens: values.Tokens = setting((), example=OPENSSL, by_default="none: `/metrics` is public")
    """Tokens for `/metrics`, sent as `Authorization: Bearer`. Several are valid at once."""
    metrics_connections: values.Series = setting(0, example="200", by_default="0: none")
    """The largest number of Airbyte connections that have a metric of their own, the time of their last success. Its
    labels are their ids and names, so set `METRICS_TOKENS`, too."""
    operator_tokens: values.Tokens = setting((), example=OPENSSL, by_default="none: nobody can")
    """API tokens that may also start a sync, cancel a job and read webhook bodies, on the dashboard too. Several are
    valid at once."""
    webhook_allow: values.Networks = setting((), example="192.0.2.0/24,2001:db8::/32", by_default="all")
    """The networks that may send webhooks; the receiver responds with 404 to all others."""
    trusted_proxies: values.Networks = setting((), example="192.0.2.7", by_default="none")
    """The proxies whose `X-Forwarded-For` header is trusted for the client's address."""
    tls_certfile: values.ExistingFile | None = setting(None, example="/etc/ssl/events.pem")
    """Serve HTTPS with this certificate chain (PEM)."""
    tls_keyfile: Annotated[values.ExistingFile | None, values.paired("tls_certfile")] = setting(
        None, example="/etc/ssl/events.key"
    )
    """The certificate's private key (PEM)."""
    poll_interval: values.Seconds = setting(3.0, example="3")
    """Seconds between two polls of an instance while jobs are watched and webhooks are not proven to work. Polls are
    rarer where Airbyte responds slowly: they take at most a twentieth of the time."""
    poll_interval_proven: values.Seconds = setting(30.0, example="30")
    """The same once webhooks are proven to work: they reported the last completions before a poll."""
    poll_interval_viewed: values.Seconds = setting(13.0, example="13")
    """The longest interval while a client uses the API: a dashboard, a stream, or a request in the last minute. With
    13, all changes are known within 15 s."""
    poll_interval_idle: values.Seconds = setting(53.0, example="53")
    """The same while no job is watched and no client uses the API. With 53, all changes are known within 60 s."""
    retain_days: values.Days = setting(30.0, example="90")
    """Days to keep events and settled notifications. The latest state of each job is always kept."""
    retain_events: values.Events = setting(1_000_000, example="5000000")
    """The largest number of events to keep, whatever their age."""
    public_url: values.Address | None = setting(None, example="https://events.example.com")
    """The address at which Airbyte reaches the listener: the part of the webhook URL before `/webhooks/`.
    `airbyte-events webhooks` and `doctor` use it."""
    listener_url: values.Address | None = setting(
        None, example="https://events.example.com", by_default="the listener of these settings, on this machine"
    )
    """The address of the listener for commands such as `airbyte-events tail`. `serve` ignores it."""
    listener_token: values.Sendable | None = setting(
        None,
        example="printed by serve when it generated its tokens",
        by_default="the first of `API_TOKENS`, on this machine",
    )
    """The token for those commands: one of that listener's `API_TOKENS`."""
    log_level: values.LogLevel = setting("info", example="info")
    """The minimum log level: `debug`, `info`, `warning` or `error`."""
    log_format: values.LogFormat = setting("console", example="json")
    """The log format: `console` for people, `json` for one JSON object per line ([Operations](operations.md))."""

    @property
    def webhook_apart(self) -> tuple[str, int] | None:
        """The address and port of the webhook receiver, if it has its own."""
        return None if self.webhook_port is None else (self.webhook_host or self.host, self.webhook_port)

    @field_validator("instances")
    @classmethod
    def _named(cls, instances: dict[str, InstanceSettings], info: ValidationInfo) -> dict[str, InstanceSettings]:
        if not instances and (info.context or {}).get("listens", True):
            raise ValueError("not set, and the listener needs an Airbyte: run airbyte-events up, which asks for it")
        if not all(INSTANCE_NAME.fullmatch(name) for name in instances):
            raise ValueError(NOT_A_NAME)
        return instances

    @field_validator("notify")
    @classmethod
    def _distinct(cls, targets: tuple[NotifySettings, ...], info: ValidationInfo) -> tuple[NotifySettings, ...]:
        names = [target.name for target in targets]
        if twice := {name for name in names if names.count(name) > 1}:
            raise CompleteError(f"two targets have the name {min(twice)}; rename one")
        for target in targets:
            if unknown := set(target.instances) - set(info.data.get("instances", target.instances)):
                known = ", ".join(info.data["instances"]) or "none"
                raise CompleteError(
                    f"{target.name}: no instance has the name {min(unknown)}; the instances are: {known}"
                )
        return targets

    @field_validator("webhook_port")
    @classmethod
    def _apart(cls, port: int | None, info: ValidationInfo) -> int | None:
        host = info.data.get("webhook_host")
        if port is None and host is not None:
            raise ValueError("not set, but webhook_host is, which requires a port")
        if port and port == info.data.get("port") and host in {None, info.data.get("host")}:
            raise ValueError("the same address and port as host and port: remove both or choose another port")
        return port

    @field_validator("api_tokens", "webhook_tokens")
    @classmethod
    def _guard(cls, tokens: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        reached, host = "host is an address that other machines can reach", info.data.get("host")
        if info.field_name == "webhook_tokens":
            reached, host = "other machines can reach the webhook receiver", info.data.get("webhook_host") or host
        if not tokens and host is not None and not values.is_loopback(host):
            raise ValueError(f"not set, but {reached}, which requires tokens")
        return tokens

    @field_validator(*_OTHER_TOKENS)
    @classmethod
    def _for_one_purpose(cls, tokens: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        others = {token for name in ("api_tokens", *_OTHER_TOKENS) for token in info.data.get(name, ())}
        if others & set(tokens):
            words = _OTHER_TOKENS[str(info.field_name)]
            raise ValueError(f"holds a token that is an {words} token; use each token for one purpose")
        return tokens

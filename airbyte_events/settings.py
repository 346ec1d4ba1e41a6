"""What a listener is told: by environment variables and a TOML file.

An option of the command line stands above an environment variable, and that above the file. Secrets can be given as
they are or by the name of a file that holds them (``…_FILE``). :func:`load` is the way in: whatever is wrong with a
setting it says in one line, and that line, like the ``repr`` of what it returns, holds no value that was given.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from platformdirs import user_data_path
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from airbyte_events.addresses import parse_network
from airbyte_events.airbyte.url import normalise_url, token_endpoint
from airbyte_events.errors import SettingsError, StoreError
from airbyte_events.settings_sources import (
    DEFAULT_INSTANCE,
    INSTANCE_NAME,
    NOT_A_NAME,
    PREFIX,
    Environment,
    TomlFile,
    read_toml,
    shown,
    variables,
    without_file,
)
from airbyte_events.store import EventStore
from airbyte_events.store.memory import MemoryStore
from airbyte_events.store.postgres_url import PostgresURL
from airbyte_events.store.sqlite import SQLiteStore
from airbyte_events.targets import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLocation:
    """Where events are kept. What it shows of itself holds no password.

    :param kind: ``sqlite``, ``postgresql``, or ``memory`` for events that end with the process.
    :param path: the database file of ``sqlite``, as it was written: a relative one counts from the working directory.
    :param url: the database of ``postgresql``.
    """

    kind: Literal["sqlite", "postgresql", "memory"]
    path: Path | None = None
    url: PostgresURL | None = None

    @classmethod
    def parse(cls, url: str) -> StoreLocation:
        """:raises ValueError: if the text is not the URL of a store that this version has; the message holds nothing
        of it."""
        if url == "memory:":
            return cls(kind="memory")
        scheme, colon, rest = url.partition(":")
        if scheme in {"memory", "mem"} or (scheme == "sqlite" and rest in {"//", "///", "///:memory:"}):
            raise ValueError(
                "a store in memory is written memory:, a file sqlite:///relative.db or sqlite:////absolute.db"
            )
        if scheme in {"postgresql", "postgres"}:
            return cls(kind="postgresql", url=PostgresURL.parse(url))
        if scheme != "sqlite" or not colon:
            raise ValueError("no such store in this version, which has sqlite, postgresql and memory")
        if not rest.startswith("///"):
            raise ValueError("sqlite wants three slashes before a relative path and four before an absolute one")
        path = rest[3:]
        if path.startswith("~") or "?" in path or "#" in path or "\0" in path:
            raise ValueError("after sqlite:/// comes nothing but a path, without ~, ? and #")
        return cls(kind="sqlite", path=Path(path))

    @classmethod
    def default(cls) -> StoreLocation:
        """A file in the user's data folder."""
        return cls(kind="sqlite", path=user_data_path("airbyte-events", appauthor=False) / "events.db")

    def store(self) -> EventStore:
        """The store, yet to be opened.

        :raises StoreError: if the driver that it wants is not installed.
        """
        # Imported where it is wanted: not every installation has a driver.
        if self.url is not None:
            try:
                from airbyte_events.store.postgres import PostgresStore
            except ImportError as exc:
                raise StoreError(
                    f"there is no driver for PostgreSQL ({exc}): pip install 'airbyte-events[postgres]'"
                ) from None
            return PostgresStore(self.url)
        return MemoryStore() if self.path is None else SQLiteStore(self.path)

    def __str__(self) -> str:
        if self.url is not None:
            return str(self.url)
        return "memory:" if self.path is None else f"sqlite:///{self.path}"


class About(NamedTuple):
    """What a setting's reference and its errors say.

    :param must_be: what a value that is refused is not.
    :param by_default: the default in words, where the value does not tell it.
    """

    meaning: str
    must_be: str
    example: str
    by_default: str | None


def about(field: FieldInfo) -> About:
    """What there is to say of a setting."""
    extra = field.json_schema_extra
    return About(**extra) if isinstance(extra, dict) else About("", "not right", "", None)  # type: ignore[arg-type]


def _setting(
    default: object = ..., *, meaning: str, must_be: str, example: str, by_default: str | None = None, **more: Any
) -> Any:
    more["default_factory" if callable(default) else "default"] = default
    extra = About(meaning, must_be, example, by_default)._asdict()
    return Field(description=meaning, validate_default=True, json_schema_extra=extra, **more)


def _listed(value: object) -> object:
    """The items of a list that was written in one text, with commas or line ends between."""
    secret = isinstance(value, SecretStr)
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        return value
    items = [item for item in re.split(r"[,\s]+", text) if item]
    return [SecretStr(item) for item in items] if secret else items


def _no_bool(value: object) -> object:
    # To pydantic true is 1, also where seconds or a port are meant.
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "a truth value")
    return value


def _host(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        ipaddress.ip_address(value)
    except ValueError:
        # What is all digits and dots is an address gone wrong, not a name.
        if not re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9_.-]{0,252})", value):
            raise ValueError("not an IP address or a host name") from None
    return value


def _uuids(values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(str(UUID(value)) for value in values))
    except ValueError:
        raise ValueError("not workspace ids (UUIDs), with commas between") from None


def _strong(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for token in tokens:
        if not re.fullmatch(r"[A-Za-z0-9._~-]{22,256}", token.get_secret_value()):
            raise ValueError("a token is 22 to 256 letters, digits and -._~ long, so that it has 128 bits or more")
    return tokens


def _targets(urls: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    Targets(url.get_secret_value() for url in urls)
    return urls


def _sendable(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]{1,4096}", token.get_secret_value()):
        raise ValueError("it has characters that no token has")
    return token


def check_address(url: str) -> str:
    """The address of a listener without what comes after it.

    :raises ValueError: if it is none; the message does not repeat it.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\\]", url):
        raise ValueError("not an address that begins with http:// or https:// and has a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("an address has neither user name nor query here")
    if "/webhooks/" in parts.path:
        raise ValueError("without /webhooks/ and what comes after it, as that is a secret of its own")
    return url.rstrip("/")


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            parse_network(value)
        except ValueError:
            raise ValueError("not networks such as 192.0.2.0/24 or addresses, with commas between") from None
    return values


def _there(file: Path) -> Path:
    if not file.is_file():
        raise ValueError("no such file")
    return file


def _store(value: object) -> object:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return StoreLocation.parse(value.strip()) if isinstance(value, str) else value


def _together(value: object, info: ValidationInfo, other: str) -> None:
    if other in info.data and value is None and info.data[other] is not None:
        raise ValueError(f"not set, though {other} is, and they go together")
    if other in info.data and value is not None and info.data[other] is None:
        raise ValueError(f"set, though {other} is not, and they go together")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


_Workspaces = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_uuids)]
_Tokens = Annotated[tuple[SecretStr, ...], BeforeValidator(_listed), AfterValidator(_strong)]
_ForwardURLs = Annotated[tuple[SecretStr, ...], BeforeValidator(_listed), AfterValidator(_targets)]
_Address = Annotated[str, AfterValidator(check_address)]
_Networks = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_networks)]
_ExistingFile = Annotated[Path, AfterValidator(_there)]
_Store = Annotated[StoreLocation, BeforeValidator(_store), PlainSerializer(str)]
_Host = Annotated[str, BeforeValidator(_host)]
_Port = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=65535)]
_Seconds = Annotated[float, BeforeValidator(_no_bool), Field(ge=0.1, le=3600, allow_inf_nan=False)]
_Days = Annotated[float, BeforeValidator(_no_bool), Field(ge=0.01, le=36500, allow_inf_nan=False)]
_Events = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=10**15)]
_Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)

_A_PORT = "not a port, a whole number from 0 to 65535"
_AN_INTERVAL = "not a number of seconds from 0.1 to 3600"
_A_LIST = "not a list with commas between"
_A_TEXT = "not a text"


class _Spelt(ValueError):
    """A fault that tells the right spelling: no example is needed."""


class InstanceSettings(BaseModel):
    """One Airbyte."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True)

    airbyte_url: str = _setting(
        meaning="Airbyte's public API: its root, or the address of the server.",
        must_be="not set",
        example="http://localhost:8000/api/public/v1",
        by_default="required",
    )
    client_id: str | None = _setting(
        None,
        meaning="Of an application in Airbyte (User settings, Applications). Leave it out where Airbyte runs without "
        "authentication.",
        must_be=_A_TEXT,
        example="6a2f0d1c-52a4-4c6e-9d4b-0e6f3c1b7a90",
        min_length=1,
    )
    client_secret: SecretStr | None = _setting(
        None,
        meaning="That application's secret.",
        must_be=_A_TEXT,
        example="what Airbyte showed when the application was made",
        min_length=1,
    )
    workspace_ids: _Workspaces = _setting(
        (),
        meaning="The workspaces to look at.",
        must_be=_A_LIST,
        example="18dccc91-0ab1-4f72-9ed7-0b8fc27c5826",
        by_default="all that the application sees",
    )
    token_url: str | None = _setting(
        None,
        meaning="Where access tokens come from.",
        must_be=_A_TEXT,
        example="https://airbyte.example.com/api/public/v1/applications/token",
        by_default="`/applications/token` of the API",
    )
    forward_urls: _ForwardURLs = _setting(
        (),
        meaning="Where notifications are forwarded to, such as a Slack channel. URLs, or `KIND=URL` for one kind "
        "alone: `success`, `failure`, `connectionUpdate`, `connectionUpdateActionRequired`, `syncDisabled`, "
        "`syncDisabledWarning`.",
        must_be=_A_LIST,
        example="failure=https://hooks.slack.com/services/T000/B000/XXXX",
        by_default="nowhere",
    )

    @field_validator("airbyte_url")
    @classmethod
    def _spelt_right(cls, url: str) -> str:
        try:
            return normalise_url(url)
        except SettingsError as exc:
            raise _Spelt(str(exc)) from None

    @field_validator("token_url")
    @classmethod
    def _resolved(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None or "airbyte_url" not in info.data:
            return url
        try:
            return token_endpoint(info.data["airbyte_url"], url)
        except SettingsError as exc:
            raise _Spelt(str(exc)) from None

    @field_validator("client_secret")
    @classmethod
    def _both_or_none(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        _together(secret, info, "client_id")
        return secret


class Settings(BaseSettings):
    """All settings of a listener.

    Keyword arguments stand above the environment (``AIRBYTE_EVENTS_*``), and that above the file that ``config``
    names. :func:`load` does the same and raises errors that people can read.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True, env_prefix=PREFIX
    )

    config: Path | None = _setting(
        None, meaning="A TOML file with settings.", must_be=_A_TEXT, example="/etc/airbyte-events.toml"
    )
    instances: dict[str, InstanceSettings] = _setting(
        dict, meaning="The Airbytes, by name.", must_be="not a table of instances", example="[instances.default]"
    )
    store: _Store = _setting(
        StoreLocation.default,
        meaning="Where events are kept: `sqlite:///relative.db`, `sqlite:////absolute.db`, "
        "`postgresql://user:password@host/database` ([PostgreSQL](postgresql.md)), or `memory:` for as long as the "
        "process lives.",
        must_be=_A_TEXT,
        example="sqlite:////var/lib/airbyte-events/events.db",
        by_default="a file in the user's data folder",
    )
    host: _Host = _setting(
        "127.0.0.1",
        meaning="The address to listen on. One that other machines reach wants `API_TOKENS` and `WEBHOOK_TOKENS`.",
        must_be="not an IP address or a host name",
        example="192.0.2.10",
    )
    port: _Port = _setting(8484, meaning="The port to listen on; 0 for a free one.", must_be=_A_PORT, example="8484")
    webhook_host: _Host | None = _setting(
        None,
        meaning="Another address for the webhook receiver, so that Airbyte reaches it and nothing else. Wants "
        "`WEBHOOK_PORT`.",
        must_be="not an IP address or a host name",
        example="192.0.2.10",
        by_default="`HOST`",
    )
    webhook_port: _Port | None = _setting(
        None,
        meaning="Another port for the webhook receiver.",
        must_be=_A_PORT,
        example="8485",
        by_default="`PORT`, the receiver is not apart",
    )
    api_tokens: _Tokens = _setting(
        (),
        meaning="Who shows one of these as `Authorization: Bearer` may read events and ask for jobs. Several are valid "
        "at once, so that they can be changed.",
        must_be=_A_LIST,
        example="what this prints: openssl rand -hex 32",
        by_default="made at start, on loopback only",
    )
    webhook_tokens: _Tokens = _setting(
        (),
        meaning="The last part of the URL that Airbyte sends webhooks to. Several are valid at once.",
        must_be=_A_LIST,
        example="what this prints: openssl rand -hex 32",
        by_default="made at start, on loopback only",
    )
    webhook_allow: _Networks = _setting(
        (),
        meaning="Networks that webhooks may come from; to all others the receiver is not there.",
        must_be=_A_LIST,
        example="192.0.2.0/24,2001:db8::/32",
        by_default="all",
    )
    trusted_proxies: _Networks = _setting(
        (),
        meaning="Proxies whose `X-Forwarded-For` tells where a request comes from.",
        must_be=_A_LIST,
        example="192.0.2.7",
        by_default="none",
    )
    tls_certfile: _ExistingFile | None = _setting(
        None, meaning="Serve HTTPS with this certificate chain (PEM).", must_be=_A_TEXT, example="/etc/ssl/events.pem"
    )
    tls_keyfile: _ExistingFile | None = _setting(
        None, meaning="The certificate's private key (PEM).", must_be=_A_TEXT, example="/etc/ssl/events.key"
    )
    poll_interval: _Seconds = _setting(
        10.0,
        meaning="Seconds between two looks at an instance while jobs are watched and webhooks have not proven that "
        "they come.",
        must_be=_AN_INTERVAL,
        example="10",
    )
    poll_interval_proven: _Seconds = _setting(
        60.0,
        meaning="The same once webhooks announced the last ends before a look found them.",
        must_be=_AN_INTERVAL,
        example="60",
    )
    poll_interval_idle: _Seconds = _setting(
        300.0, meaning="The same while no job is watched.", must_be=_AN_INTERVAL, example="300"
    )
    retain_days: _Days = _setting(
        30.0,
        meaning="Days for which events and settled notifications are kept. The latest state of each job always is.",
        must_be="not a number of days from 0.01 to 36500",
        example="90",
    )
    retain_events: _Events = _setting(
        1_000_000,
        meaning="How many events are kept at most, whatever their age.",
        must_be="not a whole number from 1 on",
        example="5000000",
    )
    public_url: _Address | None = _setting(
        None,
        meaning="Where Airbyte reaches the listener: what stands before `/webhooks/` in the URL that it sends to. "
        "`airbyte-events webhooks` and `doctor` take it from here.",
        must_be=_A_TEXT,
        example="https://events.example.com",
    )
    listener_url: _Address | None = _setting(
        None,
        meaning="The listener that commands such as `airbyte-events tail` ask. `serve` passes it over.",
        must_be=_A_TEXT,
        example="https://events.example.com",
        by_default="the one of these settings, on this machine",
    )
    listener_token: Annotated[SecretStr, AfterValidator(_sendable)] | None = _setting(
        None,
        meaning="What those commands show it: one of its `API_TOKENS`.",
        must_be=_A_TEXT,
        example="what serve printed when it made its tokens",
        by_default="the first of `API_TOKENS`, on this machine",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _Lower] = _setting(
        "info",
        meaning="The least grave log lines to write: `debug`, `info`, `warning` or `error`.",
        must_be="not one of debug, info, warning, error",
        example="info",
    )
    log_format: Annotated[Literal["console", "json"], _Lower] = _setting(
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

    @field_validator("tls_keyfile")
    @classmethod
    def _with_certificate(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        _together(file, info, "tls_certfile")
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
        return init_settings, Environment(settings_cls, InstanceSettings), TomlFile(settings_cls, InstanceSettings)


class _Exactly(Settings):
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


class _OfStore(Settings):
    @field_validator("instances")
    @classmethod
    def _named(cls, instances: dict[str, InstanceSettings]) -> dict[str, InstanceSettings]:
        return instances


def load(
    config: Path | None = None,
    *,
    host: str | None = None,
    port: int | None = None,
    store: str | None = None,
    listens: bool = True,
) -> Settings:
    """The settings, from options (what is given here), the environment and the TOML file, the first of them first.

    :param config: the TOML file; without it that of ``AIRBYTE_EVENTS_CONFIG``, if it is set.
    :param listens: whether there has to be an Airbyte to listen for.
    :raises SettingsError: if a setting is missing, wrong or unknown; the message is one line that names it, its fault
        and an example, and holds no value that was given.
    """
    options = {"config": config, "host": host, "port": port, "store": store}
    options = {name: value for name, value in options.items() if value is not None}
    try:
        return (Settings if listens else _OfStore)(**options)  # type: ignore[arg-type]  # they are what their annotations say
    except ValidationError as exc:
        # No context: a validation error knows the values, though it does not show them.
        raise SettingsError(_explained(exc, options)) from None


def _explained(exc: ValidationError, options: Mapping[str, object]) -> str:
    """One line on the first fault."""
    fault = exc.errors(include_url=False, include_input=False)[0]
    place = [str(part) for part in fault["loc"]]
    if place == ["instances"]:
        # There is none, and the first thing to know of one is its URL.
        place = ["instances", DEFAULT_INSTANCE, "airbyte_url"]
    instance, name = (place[1], place[2]) if place[0] == "instances" else (None, place[0])
    said = about((Settings if instance is None else InstanceSettings).model_fields[name])
    label, spelling = _spelling(name, instance, options)
    cause = fault.get("ctx", {}).get("error")
    text = str(cause) if isinstance(cause, ValueError) else said.must_be
    example = said.example if " " in said.example else spelling.format(said.example)
    return shown(f"{label}: {text}" + ("" if isinstance(cause, _Spelt) else f"; for example {example}"))


def _spelling(name: str, instance: str | None, options: Mapping[str, object]) -> tuple[str, str]:
    """What a setting is called where it was given, or else where it is looked for, and how it is written there."""
    if name in options:
        return f"--{name}", f"--{name} {{}}"
    variable = PREFIX + name.upper()
    if instance in {None, DEFAULT_INSTANCE}:
        for given in variables():
            if given in {variable, f"{variable}_FILE"}:
                return given, f"{variable}={{}}"
    config = options.get("config") or os.environ.get(f"{PREFIX}CONFIG")
    tree = read_toml(Path(str(config))) if config else {}
    table = tree if instance is None else tree.get("instances", {}).get(instance)
    keys = [key for key in table or {} if without_file(key)[0] == name]
    # What is missing in an instance's table is looked for there, other settings in the environment.
    if keys or (table is not None and instance is not None):
        prefix = "" if instance is None else f"instances.{instance}."
        number = isinstance((table or {}).get(name), int | float)
        return f"{prefix}{keys[0] if keys else name} in {config}", f"{name} = {{}}" if number else f'{name} = "{{}}"'
    return variable, f"{variable}={{}}"

"""The types of settings: how a value is written, and which values are refused."""

from __future__ import annotations

import ipaddress
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    InstanceOf,
    PlainSerializer,
    SecretStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from airbyte_events._utils.files import place_of, read_fault
from airbyte_events._utils.networks import parse_network
from airbyte_events.airbyte.gateway import parse_headers
from airbyte_events.listener.forwarding.targets import Targets
from airbyte_events.listener.settings.connections import ConnectionSettings, parse_connections
from airbyte_events.listener.settings.declaration import CompleteError
from airbyte_events.store.location import StoreLocation
from airbyte_events.store.registry import store_location

T = TypeVar("T")


def listed(value: object) -> object:
    """Return the items of a text that commas or white space separate; another value unchanged."""
    secret = isinstance(value, SecretStr)
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        return value
    items = [item for item in re.split(r"[,\s]+", text) if item]
    return [SecretStr(item) for item in items] if secret else items


def _host(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        # Digits and dots alone are a wrong address, not a host name.
        if not re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9_.-]{0,252})", value):
            raise ValueError(_NO_HOST) from None
    return value


def _uuids(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(UUID(value)) for value in values))


def _strong(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for token in tokens:
        if not re.fullmatch(r"[A-Za-z0-9._~-]{22,256}", token.get_secret_value()):
            raise ValueError("a token is 22 to 256 letters, digits and -._~ long, which makes 128 bits or more")
    return tokens


def _targets(urls: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    Targets(url.get_secret_value() for url in urls)
    return urls


def _existing(file: Path) -> Path:
    try:
        regular = stat.S_ISREG(file.stat().st_mode)
    except (OSError, ValueError) as exc:
        raise ValueError(f"{place_of(file)}: {read_fault(exc)}") from None
    if not regular:
        raise ValueError(f"{place_of(file)}: not a regular file")
    return file


def _sendable(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]{1,4096}", token.get_secret_value()):
        raise ValueError("a token has no spaces and no characters outside ASCII")
    return token


def check_address(url: str) -> str:
    """Return the address of a listener without a slash at its end.

    :raises ValueError: if it is no such address; the message does not repeat it.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\\]", url):
        raise ValueError("not an address that begins with http:// or https:// and has a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("remove the user name and the query from the address")
    if "/webhooks/" in parts.path:
        raise ValueError("remove /webhooks/ and everything behind it: it contains a webhook token")
    return url.rstrip("/")


def _header_lines(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, dict):
        # A table of the settings file; its values are wrapped.
        return [
            SecretStr(f"{name}: {each.get_secret_value()}") if isinstance(each, SecretStr) else None
            for name, each in text.items()
        ]
    return [SecretStr(line) for line in text.splitlines() if line.strip()] if isinstance(text, str) else text


def _headers(lines: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
    parse_headers((line.get_secret_value() for line in lines), authorized=info.data.get("client_id") is not None)
    return lines


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        parse_network(value)
    return values


def _store(value: object) -> object:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return store_location(value.strip()) if isinstance(value, str) else value


def paired(other: str) -> AfterValidator:
    """Refuse a setting that is set without the other one, or the other without it."""

    def check(value: T, info: ValidationInfo) -> T:
        if other in info.data and value is None and info.data[other] is not None:
            raise CompleteError(f"not set, but {other} is; set both or neither")
        if other in info.data and value is not None and info.data[other] is None:
            raise CompleteError(f"set, but {other} is not; set both or neither")
        return value

    return AfterValidator(check)


def is_loopback(host: str) -> bool:
    """Return whether a host to listen on can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def refused(words: str) -> WrapValidator:
    """Explain a value of another type or range in these words. Validators behind it have words of their own."""

    def validate(value: object, parse: ValidatorFunctionWrapHandler) -> object:
        try:
            return parse(value)
        except ValidationError:
            raise ValueError(words) from None

    return WrapValidator(validate)


def _within(low: float, high: float, words: str) -> WrapValidator:
    """Refuse a number out of bounds, or a value that is no number, with this message."""

    def validate(value: object, parse: ValidatorFunctionWrapHandler) -> object:
        try:
            # pydantic reads true as 1, for a port too.
            number = None if isinstance(value, bool) else parse(value)
        except ValidationError:
            number = None
        if number is None or not low <= number <= high:
            raise ValueError(words)
        return number

    return WrapValidator(validate)


_Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
_NO_HOST = "not an IP address or a host name"

_List = BeforeValidator(listed)
_Secrets = Annotated[tuple[SecretStr, ...], _List, refused("not a list separated by commas")]
_IDS = "not a list of workspace ids (UUIDs) separated by commas"
_NETWORKS = "not a list of networks or addresses separated by commas"

Workspaces = Annotated[tuple[str, ...], AfterValidator(_uuids), _List, refused(_IDS)]
Tokens = Annotated[_Secrets, AfterValidator(_strong)]
ForwardURLs = Annotated[_Secrets, AfterValidator(_targets)]
_HeaderLines = Annotated[
    tuple[SecretStr, ...], BeforeValidator(_header_lines), refused("not lines of the form Name: value")
]
Headers = Annotated[_HeaderLines, AfterValidator(_headers)]
Networks = Annotated[tuple[str, ...], AfterValidator(_networks), _List, refused(_NETWORKS)]
Address = Annotated[str, AfterValidator(check_address)]
Connections = Annotated[Mapping[str, InstanceOf[ConnectionSettings]], BeforeValidator(parse_connections)]
ExistingFile = Annotated[Path, AfterValidator(_existing)]
Store = Annotated[InstanceOf[StoreLocation], BeforeValidator(_store), PlainSerializer(str)]
Host = Annotated[str, refused(_NO_HOST), AfterValidator(_host)]
Port = Annotated[int, _within(0, 65535, "not a port, a whole number from 0 to 65535")]
Seconds = Annotated[float, _within(0.1, 3600, "not a number of seconds from 0.1 to 3600")]
Pace = Annotated[float, _within(0.1, 300, "not a number of seconds from 0.1 to 300")]
Days = Annotated[float, _within(0.01, 36500, "not a number of days from 0.01 to 36500")]
Series = Annotated[int, _within(0, 10_000, "not a whole number from 0 to 10000")]
Events = Annotated[int, _within(1, 10**15, "not a whole number of 1 or more")]
Sendable = Annotated[SecretStr, AfterValidator(_sendable)]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"], _Lower, refused("not one of debug, info, warning, error")
]
LogFormat = Annotated[Literal["console", "json"], _Lower, refused("not one of console, json")]

"""The types of settings: how a value is written, and which values are refused."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf, PlainSerializer, SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError

from airbyte_events._utils.networks import parse_network
from airbyte_events.listener.forwarding.targets import Targets
from airbyte_events.store.location import StoreLocation
from airbyte_events.store.registry import store_location


def _listed(value: object) -> object:
    secret = isinstance(value, SecretStr)
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        return value
    items = [item for item in re.split(r"[,\s]+", text) if item]
    return [SecretStr(item) for item in items] if secret else items


def _no_bool(value: object) -> object:
    # pydantic reads true as 1, for a port too.
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "a truth value")
    return value


def _host(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        ipaddress.ip_address(value)
    except ValueError:
        # Digits and dots alone are a wrong address, not a host name.
        if not re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9_.-]{0,252})", value):
            raise ValueError("not an IP address or a host name") from None
    return value


def _uuids(values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(str(UUID(value)) for value in values))
    except ValueError:
        raise ValueError("not a list of workspace ids (UUIDs) separated by commas") from None


def _strong(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for token in tokens:
        if not re.fullmatch(r"[A-Za-z0-9._~-]{22,256}", token.get_secret_value()):
            raise ValueError("a token is 22 to 256 letters, digits and -._~ long, which makes 128 bits or more")
    return tokens


def _targets(urls: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    Targets(url.get_secret_value() for url in urls)
    return urls


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


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            parse_network(value)
        except ValueError:
            raise ValueError("not a list of networks or addresses separated by commas") from None
    return values


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise ValueError("no such file")
    return file


def _store(value: object) -> object:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return store_location(value.strip()) if isinstance(value, str) else value


def check_pair(value: object, info: ValidationInfo, other: str) -> None:
    """:raises ValueError: if only one of two settings is set that need each other."""
    if other in info.data and value is None and info.data[other] is not None:
        raise ValueError(f"not set, but {other} is; set both or neither")
    if other in info.data and value is not None and info.data[other] is None:
        raise ValueError(f"set, but {other} is not; set both or neither")


def is_loopback(host: str) -> bool:
    """Return whether a host to listen on can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


Workspaces = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_uuids)]
Tokens = Annotated[tuple[SecretStr, ...], BeforeValidator(_listed), AfterValidator(_strong)]
ForwardURLs = Annotated[tuple[SecretStr, ...], BeforeValidator(_listed), AfterValidator(_targets)]
Address = Annotated[str, AfterValidator(check_address)]
Networks = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_networks)]
ExistingFile = Annotated[Path, AfterValidator(_existing)]
Store = Annotated[InstanceOf[StoreLocation], BeforeValidator(_store), PlainSerializer(str)]
Host = Annotated[str, BeforeValidator(_host)]
Port = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=65535)]
Seconds = Annotated[float, BeforeValidator(_no_bool), Field(ge=0.1, le=3600, allow_inf_nan=False)]
Days = Annotated[float, BeforeValidator(_no_bool), Field(ge=0.01, le=36500, allow_inf_nan=False)]
Events = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=10**15)]
Sendable = Annotated[SecretStr, AfterValidator(_sendable)]
Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)

A_PORT = "not a port, a whole number from 0 to 65535"
AN_INTERVAL = "not a number of seconds from 0.1 to 3600"
A_LIST = "not a list separated by commas"
A_TEXT = "not a text"

"""Where settings come from: environment variables, a TOML file, and the files that hold secrets.

What is read here is known by name and not yet judged by value. Secrets are wrapped as soon as they are read, because
pydantic-settings can log what its sources found.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from airbyte_events._utils.printable import shown
from airbyte_events.errors import SettingsError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

PREFIX = "AIRBYTE_EVENTS_"
DEFAULT_INSTANCE = "default"
"""The instance that environment variables describe."""

SECRETS = frozenset(
    {"client_secret", "forward_urls", "store", "api_tokens", "webhook_tokens", "metrics_tokens", "listener_token"}
)
"""The settings that can be given by file, too, and are shown nowhere."""

INSTANCE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
NOT_A_NAME = "an instance's name is 1 to 32 small letters, digits, _ and -, with a letter or digit first"

_LARGEST_SECRET_FILE = 64 * 1024
_KUBERNETES = re.compile(r".*_(SERVICE_(HOST|PORT(_.*)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


class _Source(PydanticBaseSettingsSource):
    """Gives all values at once.

    :param settings_cls: the settings.
    :param instance_cls: the settings of one Airbyte.
    """

    def __init__(self, settings_cls: type[BaseSettings], instance_cls: type[BaseModel]) -> None:
        super().__init__(settings_cls)
        self.names = frozenset(settings_cls.model_fields)
        self.instance_names = frozenset(instance_cls.model_fields)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError("this source gives all values at once")


class Environment(_Source):
    """``AIRBYTE_EVENTS_*``. An empty variable counts as not set."""

    def __call__(self) -> dict[str, Any]:
        """:raises SettingsError: if a variable has no meaning, or a file of a secret can't be read."""
        values: dict[str, Any] = {}
        default: dict[str, Any] = {}
        names = (self.names | self.instance_names) - {"instances"}
        for variable in variables():
            name, by_file = without_file(variable.removeprefix(PREFIX).lower())
            if name not in names:
                known = [PREFIX + other.upper() for other in with_files(names)]
                raise SettingsError(f"{shown(variable)}: no such setting{_meant(variable, known)}")
            where = default if name in self.instance_names else values
            if name in where:
                raise SettingsError(f"{PREFIX}{name.upper()}: set by value and by file; leave one of them out")
            text = os.environ[variable].strip()
            if by_file:
                where[name] = _secret_file(variable, Path(text))
            else:
                where[name] = SecretStr(text) if name in SECRETS else text
        if default:
            values["instances"] = {DEFAULT_INSTANCE: default}
        return values


class TomlFile(_Source):
    """The file that an option or the environment named."""

    def __call__(self) -> dict[str, Any]:
        """:raises SettingsError: if it or a file of a secret can't be read, or a key has no meaning."""
        config = self.current_state.get("config")
        if config is None:
            return {}
        file = Path(config)
        tree = read_toml(file)
        if lost := sorted(set(tree) & self.instance_names):
            raise SettingsError(
                f"{lost[0]} in {file}: belongs in the table of its Airbyte; for example [instances.default]"
            )
        values = dict(_table(tree, "", file, self.names - {"config"}))
        tables = values.get("instances", {})
        if not isinstance(tables, dict):
            raise SettingsError(f"instances in {file}: not a table; for example [instances.default]")
        for name, table in tables.items():
            if not isinstance(table, dict) or not INSTANCE_NAME.fullmatch(name):
                fault = NOT_A_NAME if isinstance(table, dict) else "not a table"
                raise SettingsError(f"instances.{shown(name)} in {file}: {fault}; for example [instances.default]")
            tables[name] = dict(_table(table, f"instances.{name}.", file, self.instance_names))
        return values


def variables() -> list[str]:
    """The environment variables that are meant for us and are not empty.

    Kubernetes sets such variables, too, for every service beside the pod: one that is called ``airbyte-events`` gives
    ``AIRBYTE_EVENTS_PORT=tcp://10.0.0.1:8484`` and more
    (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
    """
    return [
        name
        for name, value in sorted(os.environ.items())
        if name.startswith(PREFIX)
        and value.strip()
        and not _KUBERNETES.fullmatch(name)
        and not (name.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", value))
    ]


def with_files(names: frozenset[str]) -> list[str]:
    """The names, and for each secret among them the name of what holds its file, too."""
    return sorted(names) + [f"{name}_file" for name in sorted(names & SECRETS)]


def without_file(key: str) -> tuple[str, bool]:
    """The setting that a key is about, and whether the key names a file with its value."""
    name = key.removesuffix("_file")
    return (name, name != key) if name in SECRETS else (key, False)


def read_toml(file: Path) -> dict[str, Any]:
    """:raises SettingsError: if it can't be read or is not TOML."""
    try:
        tree: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        name = f"{PREFIX}CONFIG"
        label = name if os.environ.get(name) == str(file) else "--config"
        example = f"{label}{'=' if label == name else ' '}airbyte-events.toml"
        raise SettingsError(f"{label}: {_reason(exc)}; for example {example}") from None
    except ValueError as exc:
        # What is not TOML may be a file of secrets that was named by mistake: only the place is told.
        place = re.search(r"\(at [^)]*\)", str(exc))
        fault = "not UTF-8" if isinstance(exc, UnicodeDecodeError) else "not TOML" + (f" {place[0]}" if place else "")
        raise SettingsError(f"the settings file {file}: {fault}; for example port = 8484") from None
    return tree


def _table(table: dict[str, Any], prefix: str, file: Path, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        name, by_file = without_file(key)
        label = f"{prefix}{shown(key)} in {file}"
        if name not in names:
            raise SettingsError(f"{label}: no such setting{_meant(key, with_files(names))}")
        if not by_file:
            yield name, _wrapped(value) if name in SECRETS else value
        elif name in table:
            raise SettingsError(f"{prefix}{name} in {file}: set by value and by file; leave one of them out")
        elif isinstance(value, str):
            yield name, _secret_file(label, file.parent / value)
        else:
            raise SettingsError(f'{label}: not the name of a file; for example {key} = "/run/secrets/{name}"')


def _wrapped(value: object) -> object:
    if isinstance(value, list):
        return [_wrapped(item) for item in value]
    return SecretStr(value.strip()) if isinstance(value, str) else value


def _secret_file(label: str, file: Path) -> SecretStr:
    # The name is not told: it may be the secret itself, given to the wrong variable.
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_SECRET_FILE + 1)
        text = content.decode().strip()
    except (OSError, ValueError) as exc:
        raise SettingsError(f"{label}: {_reason(exc)}; for example /run/secrets/airbyte-events") from None
    if not text or len(content) > _LARGEST_SECRET_FILE:
        raise SettingsError(f"{label}: the file is {'too large' if text else 'empty'}; it holds nothing but the secret")
    return SecretStr(text)


def _reason(exc: OSError | ValueError) -> str:
    if isinstance(exc, FileNotFoundError):
        return "no such file"
    return f"can't be read ({exc.strerror})" if isinstance(exc, OSError) else "not a file of UTF-8 text"


def _meant(name: str, known: list[str]) -> str:
    # The prefix that all have in common says nothing about how near they are.
    bare = {other.removeprefix(PREFIX): other for other in known}
    near = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=0.7)
    return f"; did you mean {bare[near[0]]}?" if near else "; airbyte-events serve --help lists what there is"

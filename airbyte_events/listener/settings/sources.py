"""Read settings from environment variables, a TOML file, and the files that hold secrets.

Names are checked here, values are not. A secret is wrapped as soon as it is read.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from airbyte_events._utils.files import place_of, read_fault
from airbyte_events._utils.printable import shown
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings.declaration import DEFAULT_INSTANCE, INSTANCE_NAME, PREFIX, SECRETS
from airbyte_events.listener.settings.instance import InstanceSettings
from airbyte_events.listener.settings.listener import NOT_A_NAME, Settings
from airbyte_events.listener.settings.notify import NotifySettings

_NAMES = frozenset(Settings.model_fields)
_INSTANCE_NAMES = frozenset(InstanceSettings.model_fields)
_TABLES = frozenset({"instances", "notify", "connections"})
"""What only the file has."""

_NOTIFY_NAMES = frozenset(NotifySettings.model_fields)
_INSTANCES = f"{PREFIX}INSTANCES__"
_MAX_SECRET_FILE = 64 * 1024
_KUBERNETES = re.compile(r".*_(SERVICE_(HOST|PORT(_.*)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


def read_environment() -> dict[str, Any]:
    """Return the values of ``AIRBYTE_EVENTS_*``. An empty variable counts as not set.

    ``AIRBYTE_EVENTS_INSTANCES__NAME__AIRBYTE_URL`` is a setting of the instance ``name``; without the middle, of
    ``default``.

    :raises SettingsError: if a variable is unknown, or a secret's file can't be read.
    """
    values: dict[str, Any] = {}
    instances: dict[str, dict[str, Any]] = {}
    for variable in variables():
        instance, key = _instance_of(variable)
        name, by_file = without_file(key)
        names = (_NAMES | _INSTANCE_NAMES if instance is None else _INSTANCE_NAMES) - _TABLES
        if name not in names:
            before = variable[: len(variable) - len(key)]
            known = [before + other.upper() for other in _with_files(names)]
            raise SettingsError(f"{shown(variable)}: no such setting{_suggestion(variable, known)}")
        target = values
        if name in _INSTANCE_NAMES:
            target = instances.setdefault(instance or DEFAULT_INSTANCE, {})
        if name in target:
            label = variable[: -len("_FILE")] if by_file else variable
            raise SettingsError(f"{label}: set by value and by file, or by two variables; leave one of them out")
        text = os.environ[variable].strip()
        if by_file:
            target[name] = _secret_file(variable, text)
        else:
            target[name] = SecretStr(text) if name in SECRETS else text
    return values | ({"instances": instances} if instances else {})


def instance_variable(instance: str, name: str) -> str:
    """Return the environment variable of an instance's setting."""
    return f"{_INSTANCES}{instance.upper()}__{name.upper()}"


def _instance_of(variable: str) -> tuple[str | None, str]:
    """Return the instance that a variable names, None if none, and the setting."""
    if not variable.startswith(_INSTANCES):
        return None, variable.removeprefix(PREFIX).lower()
    name, separator, key = variable.removeprefix(_INSTANCES).lower().rpartition("__")
    if not separator or not INSTANCE_NAME.fullmatch(name):
        raise SettingsError(
            f"{shown(variable)}: {NOT_A_NAME if separator else 'names no instance and setting'}; for example"
            f" {instance_variable('cloud', 'airbyte_url')}"
        )
    return name, key


def read_file(file: Path) -> dict[str, Any]:
    """Return the values of a TOML file.

    :raises SettingsError: if it or a secret's file can't be read, or a key is unknown.
    """
    tree = read_toml(file)
    if misplaced := sorted(set(tree) & _INSTANCE_NAMES):
        raise SettingsError(
            f"{misplaced[0]} in {file}: belongs in the table of its Airbyte; for example [instances.default]"
        )
    values = dict(_table(tree, "", file, _NAMES - {"config"}))
    tables = values.get("instances", {})
    if not isinstance(tables, dict):
        raise SettingsError(f"instances in {file}: not a table; for example [instances.default]")
    for name, table in tables.items():
        if not isinstance(table, dict) or not INSTANCE_NAME.fullmatch(name):
            fault = NOT_A_NAME if isinstance(table, dict) else "not a table"
            raise SettingsError(f"instances.{shown(name)} in {file}: {fault}; for example [instances.default]")
        tables[name] = dict(_table(table, f"instances.{name}.", file, _INSTANCE_NAMES))
    targets = values.get("notify", [])
    if not isinstance(targets, list) or not all(isinstance(table, dict) for table in targets):
        raise SettingsError(f"notify in {file}: not an array of tables; for example [[notify]]")
    if targets:
        values["notify"] = [
            dict(_table(table, notify_label(table, place), file, _NOTIFY_NAMES)) for place, table in enumerate(targets)
        ]
    return values


def notify_label(table: dict[str, Any], place: int) -> str:
    """Return how errors call the keys of a table ``[[notify]]``: by its name, or else its number."""
    name = table.get("name")
    return f"notify.{shown(name) if isinstance(name, str) and len(name) < 40 else place + 1}."


def variables() -> list[str]:
    """Return the names of our environment variables that are not empty.

    Kubernetes sets variables for every service beside the pod: a service named ``airbyte-events`` gives
    ``AIRBYTE_EVENTS_PORT=tcp://10.0.0.1:8484`` and more
    (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables). Those are ignored.
    """
    return [
        name
        for name, value in sorted(os.environ.items())
        if name.startswith(PREFIX)
        and value.strip()
        and not _KUBERNETES.fullmatch(name)
        and not (name.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", value))
    ]


def without_file(key: str) -> tuple[str, bool]:
    """Return the setting that a key is for, and whether the key names a file with its value."""
    name = key.removesuffix("_file")
    return (name, name != key) if name in SECRETS else (key, False)


def read_toml(file: Path) -> dict[str, Any]:
    """:raises SettingsError: if it can't be read or is not TOML."""
    try:
        tree: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        name = f"{PREFIX}CONFIG"
        # A variable's value may be a secret, meant for another one.
        of_variable = Path(os.environ.get(name, "").strip()) == file
        label = f"{name}: {place_of(file)}" if of_variable else f"--config: {file}"
        example = f"{name}=airbyte-events.toml" if of_variable else "--config airbyte-events.toml"
        raise SettingsError(f"{label}: {read_fault(exc)}; for example {example}") from None
    except ValueError as exc:
        # The file may hold secrets and be named by mistake: the message gives the position only.
        place = re.search(r"\(at [^)]*\)", str(exc))
        fault = "not UTF-8" if isinstance(exc, UnicodeDecodeError) else "not TOML" + (f" {place[0]}" if place else "")
        raise SettingsError(f"the settings file {file}: {fault}; for example port = 8484") from None
    return tree


def _with_files(names: frozenset[str]) -> list[str]:
    return sorted(names) + [f"{name}_file" for name in sorted(names & SECRETS)]


def _table(table: dict[str, Any], prefix: str, file: Path, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        name, by_file = without_file(key)
        label = f"{prefix}{shown(key)} in {file}"
        if name not in names:
            raise SettingsError(f"{label}: no such setting{_suggestion(key, _with_files(names), inner=bool(prefix))}")
        if not by_file:
            yield name, _wrapped(value) if name in SECRETS else value
        elif name in table:
            raise SettingsError(f"{prefix}{name} in {file}: set by value and by file; leave one of them out")
        elif isinstance(value, str):
            yield name, _secret_file(label, value, file.parent)
        else:
            raise SettingsError(f'{label}: not the name of a file; for example {key} = "/run/secrets/{name}"')


def _wrapped(value: object) -> object:
    if isinstance(value, list):
        return [_wrapped(item) for item in value]
    if isinstance(value, dict):
        return {name: _wrapped(item) for name, item in value.items()}
    return SecretStr(value.strip()) if isinstance(value, str) else value


def _secret_file(label: str, name: str, folder: Path | None = None) -> SecretStr:
    """Return the content of the file that a setting names.

    :param folder: where a relative name counts from; by default the working directory.
    """
    try:
        with ((folder or Path()) / name).open("rb") as stream:
            content = stream.read(_MAX_SECRET_FILE + 1)
        text = content.decode().strip()
    except (OSError, ValueError) as exc:
        label = f"{label}: {place_of(name, folder)}"
        raise SettingsError(f"{label}: {read_fault(exc)}; for example /run/secrets/airbyte-events") from None
    if not text or len(content) > _MAX_SECRET_FILE:
        label = f"{label}: {place_of(name, folder)}"
        raise SettingsError(f"{label}: the file is {'too large' if text else 'empty'}; it must hold the secret alone")
    return SecretStr(text)


def _suggestion(name: str, known: list[str], *, inner: bool = False) -> str:
    """Return the nearest name, or how to see all.

    :param inner: whether they are those of a table within the file, which no command lists.
    """
    # Without the prefix: all names share it, so it would make every name look similar.
    bare = {other.removeprefix(PREFIX): other for other in known}
    near = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=0.7)
    if near:
        return f"; did you mean {bare[near[0]]}?"
    return f"; known are {', '.join(known)}" if inner else "; airbyte-events serve --help lists the settings"

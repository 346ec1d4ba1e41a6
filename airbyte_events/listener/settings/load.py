"""Merge options, environment and file into settings, or explain the first fault in one line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from airbyte_events._utils.files import place_of
from airbyte_events._utils.printable import shown
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings import sources
from airbyte_events.listener.settings.declaration import DEFAULT_INSTANCE, PREFIX, CompleteError, Declared, example_of
from airbyte_events.listener.settings.instance import InstanceSettings
from airbyte_events.listener.settings.listener import Settings
from airbyte_events.listener.settings.notify import NotifySettings
from airbyte_events.listener.settings.saved import find_saved

_IN_FILE = "{} in that file"
"""How errors write a setting's example where a file has its value."""


def load(
    config: Path | None = None,
    *,
    host: str | None = None,
    port: int | None = None,
    listens: bool = True,
    airbyte: Mapping[str, Any] | None = None,
) -> Settings:
    """Return the settings: an option given here overrides the environment, which overrides the TOML file.

    :param config: the TOML file; without it the one that ``AIRBYTE_EVENTS_CONFIG`` names, else the settings that
        ``airbyte-events up`` keeps.
    :param airbyte: options of the one Airbyte, ``default``.
    :param listens: whether at least one Airbyte must be configured.
    :raises SettingsError: if a setting is missing, wrong or unknown. The message is one line that names the setting,
        the fault and an example, and holds no value that was given.
    """
    options = {"config": config, "host": host, "port": port}
    options = {name: value for name, value in options.items() if value is not None}
    tables = {"instances": {DEFAULT_INSTANCE: airbyte}} if airbyte else {}
    values = _merged(sources.read_environment(), options | tables)
    file = values.get("config") or find_saved(values)
    if file is not None:
        values = _merged(sources.read_file(Path(file)), values)
    try:
        return Settings.model_validate(values, context={"listens": listens})
    except ValidationError as exc:
        # Without the context: a validation error holds the values, though it does not show them.
        raise SettingsError(_explained(exc, options | dict(airbyte or {}), file)) from None


def _merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, table by table; values of ``upper`` take precedence."""
    return {**lower, **upper} | {
        name: _merged(lower[name], value)
        for name, value in upper.items()
        if isinstance(value, dict) and isinstance(lower.get(name), dict)
    }


def _explained(exc: ValidationError, options: Mapping[str, object], file: Path | str | None) -> str:
    """Explain the first fault in one line."""
    fault = exc.errors(include_url=False, include_input=False)[0]
    place = [str(part) for part in fault["loc"]]
    if place == ["instances"]:
        # No instance is configured: its URL is the first setting to write.
        place = ["instances", DEFAULT_INSTANCE, "airbyte_url"]
    instance, name = (place[1], place[2]) if place[0] == "instances" else (None, place[0])
    declared: type[Declared] = Settings if instance is None else InstanceSettings
    if place[0] == "notify" and len(place) > 2:
        declared, name = NotifySettings, place[2]
        label, assignment = _in_notify(name, int(place[1]), file)
    else:
        label, assignment = _assignment(name, instance, options, file)
    cause = fault.get("ctx", {}).get("error")
    text = "not set" if fault["type"] == "missing" else "not a text"
    text = str(cause) if isinstance(cause, ValueError) else text
    example = example_of(declared.model_fields[name])
    example = example if " " in example else assignment.format(example)
    return shown(f"{label}: {text}" + ("" if isinstance(cause, CompleteError) else f"; for example {example}"))


def _in_notify(name: str, place: int, file: Path | str | None) -> tuple[str, str]:
    """Return the same as :func:`_assignment` for a setting of a table ``[[notify]]``."""
    tree = sources.read_toml(Path(file)) if file else {}
    table = dict(enumerate(tree.get("notify", []))).get(place, {})
    return _in_file(table, sources.notify_label(table, place), name, Path(file or ""))


def _in_file(table: Mapping[str, Any], prefix: str, name: str, file: Path) -> tuple[str, str]:
    """Return the same as :func:`_assignment` for a setting of a table of the settings file.

    :param prefix: what errors write before the table's keys.
    """
    key = next((key for key in table if sources.without_file(key)[0] == name), name)
    if key != name:
        return f"{prefix}{key} in {file}: {place_of(str(table[key]), file.parent)}", _IN_FILE
    number = isinstance(table.get(name), int | float)
    return f"{prefix}{key} in {file}", f"{name} = {{}}" if number else f'{name} = "{{}}"'


def _assignment(
    name: str, instance: str | None, options: Mapping[str, object], file: Path | str | None
) -> tuple[str, str]:
    """Return the name of a setting where it was given, or where it is expected, and how to write it there."""
    if name in options:
        option = f"--{name.replace('_', '-')}"
        return option, f"{option} {{}}"
    variable = PREFIX + name.upper()
    expected = [variable] if instance in {None, DEFAULT_INSTANCE} else []
    expected += [] if instance is None else [sources.instance_variable(instance, name)]
    for given in sources.variables():
        for one in expected:
            if given == f"{one}_FILE":
                return f"{given}: {place_of(os.environ[given].strip())}", _IN_FILE
            if given == one:
                return given, f"{one}={{}}"
    tree = sources.read_toml(Path(file)) if file else {}
    table = tree if instance is None else tree.get("instances", {}).get(instance)
    keys = [key for key in table or {} if sources.without_file(key)[0] == name]
    # A missing setting is expected in the instance's table if there is one, else in the environment.
    if keys or (table is not None and instance is not None):
        prefix = "" if instance is None else f"instances.{instance}."
        return _in_file(table or {}, prefix, name, Path(file or ""))
    return expected[0], f"{expected[0]}={{}}"

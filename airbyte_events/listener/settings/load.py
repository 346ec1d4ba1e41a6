"""Settings that are right, or one line on the first that is not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError, field_validator

from airbyte_events._utils.printable import shown
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings.declaration import Spelt, about
from airbyte_events.listener.settings.instance import InstanceSettings
from airbyte_events.listener.settings.listener import Settings
from airbyte_events.listener.settings.sources import DEFAULT_INSTANCE, PREFIX, read_toml, variables, without_file


class _WithoutAirbyte(Settings):
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
        return (Settings if listens else _WithoutAirbyte)(**options)  # type: ignore[arg-type]  # they are what their annotations say
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
    return shown(f"{label}: {text}" + ("" if isinstance(cause, Spelt) else f"; for example {example}"))


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

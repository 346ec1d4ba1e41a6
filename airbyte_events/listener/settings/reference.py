"""The reference of all settings, made from their declarations."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pydantic.fields import FieldInfo

from airbyte_events.listener.settings.declaration import PREFIX, SECRETS, example_of
from airbyte_events.listener.settings.instance import InstanceSettings
from airbyte_events.listener.settings.listener import Settings
from airbyte_events.listener.settings.notify import NotifySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A line of the reference.

    :param variable: its environment variable.
    :param key: its key in the TOML file, None if it has none.
    :param default: in words, empty if there is none.
    :param secret: whether it can also be given by file, as ``variable_FILE`` and ``key_file``.
    """

    variable: str
    key: str | None
    default: str
    meaning: str
    example: str
    secret: bool


def reference() -> list[Setting]:
    """Return every setting, those of an instance first."""
    lines = [
        _line(name, field, f"instances.NAME.{name}")
        for name, field in InstanceSettings.model_fields.items()
        if name != "connections"
    ]
    for name, field in Settings.model_fields.items():
        if name not in ("instances", "notify"):
            lines.append(_line(name, field, None if name == "config" else name))
    return lines


def markdown() -> str:
    """Return the reference as Markdown tables."""
    rows = ["| variable | in the file | default | meaning | example |", "|---|---|---|---|---|"]
    for line in reference():
        variable = f"`{line.variable}`" + (f"<br>`{line.variable}_FILE`" if line.secret else "")
        key = "" if line.key is None else f"`{line.key}`" + (f"<br>`{line.key}_file`" if line.secret else "")
        example = line.example if " " in line.example else f"`{line.example}`"
        rows.append(f"| {variable} | {key} | {line.default} | {line.meaning} | {example} |")
    rows += ["", "The keys of a `[[notify]]` table, which only the file has:", ""]
    rows += ["| key | default | meaning | example |", "|---|---|---|---|"]
    for name, field in NotifySettings.model_fields.items():
        line = _line(name, field, name)
        key = f"`{name}`" + (f"<br>`{name}_file`" if line.secret else "")
        example = line.example if line.example.startswith("the ") else f"`{line.example}`"
        rows.append(f"| {key} | {line.default} | {line.meaning} | {example} |")
    return "\n".join(rows) + "\n"


def _line(name: str, field: FieldInfo, key: str | None) -> Setting:
    default = field.json_schema_extra["by_default"] if isinstance(field.json_schema_extra, dict) else None
    if default is None:
        default = "" if field.default in (None, ()) else f"`{field.default}`".replace(".0`", "`")
    return Setting(
        variable=PREFIX + name.upper(),
        key=key,
        default=str(default),
        meaning=" ".join((field.description or "").split()),
        example=example_of(field),
        secret=name in SECRETS,
    )


if __name__ == "__main__":
    sys.stdout.write(markdown())

"""The settings that ``airbyte-events up`` saves in the user's data folder, for commands that are given no others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from platformdirs import user_data_path
from pydantic import SecretStr

from airbyte_events._utils.files import read_fault, write_private
from airbyte_events.airbyte.url import normalise_url
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings.declaration import DEFAULT_INSTANCE, SECRETS
from airbyte_events.listener.settings.sources import read_toml


def data_folder() -> Path:
    """Return the user's data folder.

    :raises SettingsError: if the user has none.
    """
    try:
        return user_data_path("airbyte-events", appauthor=False)
    except RuntimeError:
        raise SettingsError("the data folder: this user has no home: set HOME or XDG_DATA_HOME to a folder") from None


def settings_file() -> Path:
    """Return the file with the saved settings, which need not exist."""
    return data_folder() / "settings.toml"


def secret_file(name: str) -> Path:
    """Return the file with a saved secret, such as ``api_tokens``."""
    return data_folder() / name.replace("_", "-")


def saved_secret(name: str) -> tuple[SecretStr, ...]:
    """Return the lines of a saved secret; nothing if there is none."""
    file = secret_file(name)
    try:
        return tuple(map(SecretStr, file.read_text(encoding="utf-8").split())) if _readable(file) else ()
    except (OSError, ValueError) as exc:
        raise SettingsError(f"the data folder: {file}: {read_fault(exc)}") from None


def find_saved(given: Mapping[str, Any]) -> Path | None:
    """Return the file with the saved settings if they complete the given ones.

    They do not if those name another file or another Airbyte: a secret is sent to no other Airbyte than the one that it
    was saved for.

    :param given: by the environment and options.
    :raises SettingsError: if the file can't be read.
    """
    try:
        file = settings_file()
    except SettingsError:
        return None
    if "config" in given or not _readable(file):
        return None
    instances = given.get("instances", {})
    if not instances:
        return file
    url = instances.get(DEFAULT_INSTANCE, {}).get("airbyte_url")
    return file if set(instances) == {DEFAULT_INSTANCE} and (url is None or _is_for(file, url)) else None


def save(instance: Mapping[str, Any], **settings: Any) -> None:
    """Write the settings, and each secret to a file of its own. Only the user can read them.

    :param instance: the settings of the Airbyte. Those that are None or empty are left out.
    :raises SettingsError: if they can't be written.
    """
    file = settings_file()
    if _readable(file) and not _is_for(file, instance["airbyte_url"]):
        # Whatever stops this, no settings name one Airbyte beside the secret of another.
        with _changing(file):
            file.unlink()
    lines = [*_written(settings), "", f"[instances.{DEFAULT_INSTANCE}]", *_written(instance)]
    _write(file, "\n".join([_HEADING, *lines, ""]))


_HEADING = "# Written by airbyte-events up, which replaces it. For more settings, name a file of your own by --config."


def _written(values: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, value in values.items():
        if value in (None, (), {}):
            continue
        if name not in SECRETS:
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
            continue
        secrets = value if isinstance(value, tuple) else (value,)
        _write(secret_file(name), "".join(f"{secret.get_secret_value()}\n" for secret in secrets))
        lines.append(f"{name}_file = {json.dumps(secret_file(name).name)}")
    return lines


def _write(file: Path, text: str) -> None:
    with _changing(file):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(file, text)


@contextmanager
def _changing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SettingsError(
            f"the data folder: {file} can't be written ({exc.strerror}); name another folder, for example "
            "XDG_DATA_HOME=/var/lib/me"
        ) from exc


def _readable(file: Path) -> bool:
    # Of a service without a home folder, or with another user's, nothing can be read.
    return os.access(file, os.R_OK)


def _is_for(file: Path, url: object) -> bool:
    try:
        known = read_toml(file).get("instances", {}).get(DEFAULT_INSTANCE, {}).get("airbyte_url")
        return normalise_url(str(url)) == normalise_url(str(known))
    except SettingsError:
        return False

"""Airbyte by the listener's settings, for commands that call its API."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator

import typer

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.airbyte.url import token_endpoint
from airbyte_events.cli.api_client import http_client
from airbyte_events.cli.options import uuid
from airbyte_events.errors import NotFound, SettingsError, UnknownConnection
from airbyte_events.listener.secrets import airbyte_client
from airbyte_events.listener.settings import InstanceSettings, Settings


def choose_instance(settings: Settings, instance: str | None, *, why: str) -> tuple[str, InstanceSettings]:
    """Return the name and settings of an instance: the named or the only one.

    :param why: completes the sentence "the command …" of the error.
    :raises SettingsError: if there is none.
    """
    known = ", ".join(sorted(settings.instances))
    if not settings.instances:
        raise SettingsError(
            f"AIRBYTE_EVENTS_AIRBYTE_URL: not set, though the command {why}: run airbyte-events up, or set the "
            "listener's AIRBYTE_URL, CLIENT_ID and CLIENT_SECRET, in the environment or by --config; for example "
            "AIRBYTE_EVENTS_AIRBYTE_URL=http://localhost:8000/api/public/v1"
        )
    if instance is None and len(settings.instances) > 1:
        raise SettingsError(
            f"--instance: not set, and the settings have {known}; write --instance {next(iter(settings.instances))}"
        )
    name = instance or next(iter(settings.instances))
    if name not in settings.instances:
        raise typer.BadParameter(f"{name!r} is not one of {known}", param_hint="--instance")
    return name, settings.instances[name]


@contextlib.asynccontextmanager
async def open_airbyte(instance: InstanceSettings, *, attempts: int = 5) -> AsyncIterator[AirbyteClient]:
    """Open a client of the instance: ``async with open_airbyte(instance) as airbyte``."""
    async with http_client(instance.airbyte_url, token_endpoint(instance.airbyte_url, instance.token_url)) as http:
        yield airbyte_client(http, instance, attempts=attempts)


async def find_connection(airbyte: AirbyteClient, given: str) -> tuple[str, str]:
    """Return the id and the name of a connection.

    :param given: its id or name.
    :raises AirbyteError: if there is none.
    :raises UnknownConnection: if no connection, or several, have the name.
    """
    if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", given):
        id_ = uuid("CONNECTION", given)
        try:
            return id_, str((await airbyte.get_connection(id_)).get("name") or id_)
        except NotFound as exc:
            raise UnknownConnection(f"Airbyte has no connection {id_} that these credentials may read ({exc})") from exc
    return await airbyte.find_connection(given), given

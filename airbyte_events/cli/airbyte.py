"""The Airbyte that a command asks itself, by the listener's settings."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator

import typer

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.airbyte.url import token_endpoint
from airbyte_events.cli.api_client import http_client
from airbyte_events.cli.options import uuid
from airbyte_events.errors import AirbyteError, SettingsError
from airbyte_events.listener.secrets import credentials_of
from airbyte_events.listener.settings import InstanceSettings, Settings


def chosen(settings: Settings, instance: str | None, *, why: str) -> tuple[str, InstanceSettings]:
    """The instance that is meant: the one that was named, or the only one.

    :param why: what the command wants it for; completes the sentence "the command …".
    :raises SettingsError: if there is none.
    """
    known = ", ".join(sorted(settings.instances))
    if not settings.instances:
        raise SettingsError(
            f"AIRBYTE_EVENTS_AIRBYTE_URL: not set, and the command {why}: give it the listener's settings of that "
            "Airbyte (URL, CLIENT_ID, CLIENT_SECRET), by environment or --config; for example "
            "AIRBYTE_EVENTS_AIRBYTE_URL=http://localhost:8000/api/public/v1"
        )
    if instance is None and len(settings.instances) > 1:
        raise SettingsError(f"--instance: there are {known}; for example --instance {next(iter(settings.instances))}")
    name = instance or next(iter(settings.instances))
    if name not in settings.instances:
        raise typer.BadParameter(f"there are {known}", param_hint="--instance")
    return name, settings.instances[name]


@contextlib.asynccontextmanager
async def open_airbyte(instance: InstanceSettings, *, attempts: int = 5) -> AsyncIterator[AirbyteClient]:
    """Its API: ``async with open_airbyte(instance) as airbyte``.

    :param attempts: how often a read is tried.
    """
    async with http_client(instance.airbyte_url, token_endpoint(instance.airbyte_url, instance.token_url)) as http:
        yield AirbyteClient(
            http,
            instance.airbyte_url,
            credentials=credentials_of(instance),
            token_url=instance.token_url,
            workspace_ids=instance.workspace_ids,
            attempts=attempts,
        )


async def find_connection(airbyte: AirbyteClient, given: str) -> tuple[str, str]:
    """The id and the name of a connection.

    :param given: either of the two.
    :raises AirbyteError: if there is none, or several have the name.
    """
    if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", given):
        id_ = uuid("CONNECTION", given)
        return id_, str((await airbyte.get_connection(id_)).get("name") or id_)
    found = [each for each in await airbyte.list_connections() if each.get("name") == given]
    if len(found) != 1:
        what = "no connection is" if not found else f"{len(found)} connections are"
        raise AirbyteError(f"{what} called {given!r}: give its id, which stands in the address of its page")
    return str(found[0].get("connectionId")), given

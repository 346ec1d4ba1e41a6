"""What the options of ``airbyte-events webhooks`` and the settings mean together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.cli import options
from airbyte_events.cli.airbyte import chosen
from airbyte_events.cli.api_client import Address
from airbyte_events.cli.webhooks.backup import Kept, usual_file
from airbyte_events.cli.webhooks.workspaces import NoNotifications, Ours, Workspace, find_workspaces
from airbyte_events.errors import AirbyteError, SettingsError
from airbyte_events.listener.settings import InstanceSettings, Settings, check_address, load

Workspaces = Annotated[
    list[str] | None,
    typer.Option(
        "--workspace", metavar="ID", help="May be repeated. [AIRBYTE_EVENTS_WORKSPACE_IDS, else the only one there is]"
    ),
]
URL = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Where Airbyte reaches the listener, without /webhooks/: the token is taken from the settings. "
        "[AIRBYTE_EVENTS_PUBLIC_URL]",
    ),
]
Keep = Annotated[
    Path | None,
    typer.Option(
        "--keep", metavar="FILE", help="Holds what stood there before. By default a file in the user's data folder."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What the options and settings mean."""

    settings: Settings
    name: str
    instance: InstanceSettings
    listener: Address
    workspaces: Collection[str]
    kept: Kept
    ours: Ours

    @classmethod
    def by(
        cls,
        config: Path | None,
        instance: str | None,
        workspaces: list[str] | None,
        url: str | None,
        listener: str | None,
        keep: Path | None,
    ) -> Intent:
        settings = load(config, listens=False)
        name, of_instance = chosen(settings, instance, why="asks Airbyte for its workspaces")
        kept = Kept(keep or usual_file(name), of_instance.airbyte_url)
        tokens = tuple(token.get_secret_value() for token in settings.webhook_tokens)
        named = [options.uuid("--workspace", each) for each in workspaces or ()]
        return cls(
            settings=settings,
            name=name,
            instance=of_instance,
            listener=Address.of(settings, listener),
            workspaces=named or of_instance.workspace_ids,
            kept=kept,
            ours=Ours(instance=name, tokens=tokens, base=base_url(url, settings), digests=kept.digests),
        )

    async def found(self, airbyte: AirbyteClient) -> list[Workspace]:
        """:raises AirbyteError: if their notifications can't be seen; the message says what to do instead."""
        try:
            return await find_workspaces(airbyte, self.workspaces)
        except NoNotifications as exc:
            raise AirbyteError(f"{exc}; {exc.remedy(self.ours)}") from exc


def base_url(url: str | None, settings: Settings) -> str | None:
    """Where Airbyte reaches the listener, by ``--url`` or the settings.

    :raises SettingsError: if the option is no address.
    """
    try:
        return check_address(url) if url else settings.public_url
    except ValueError as exc:
        raise SettingsError(f"--url: {exc}; for example --url https://events.example.com") from None

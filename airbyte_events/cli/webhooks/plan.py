"""The plan of a ``webhooks`` command, from its options and the settings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.cli import options
from airbyte_events.cli.airbyte import choose_instance, open_airbyte
from airbyte_events.cli.api_client import Address, address_of, open_listener
from airbyte_events.cli.options import option
from airbyte_events.cli.webhooks.airbyte_test import prove_by_airbyte
from airbyte_events.cli.webhooks.backup import Backup, default_file
from airbyte_events.cli.webhooks.probe import Proof
from airbyte_events.cli.webhooks.workspaces import (
    Change,
    NoNotifications,
    ReceiverURLs,
    Workspace,
    apply,
    read_workspaces,
)
from airbyte_events.errors import AirbyteError, NotFound, SettingsError
from airbyte_events.listener.settings import InstanceSettings, Settings

Workspaces = Annotated[
    list[str] | None,
    option(
        "ID", "Airbyte workspace. May be repeated. [AIRBYTE_EVENTS_WORKSPACE_IDS, else the only one]", "--workspace"
    ),
]
URL = Annotated[
    str | None,
    option(
        "URL",
        "Address at which Airbyte reaches the listener, without /webhooks/…: the settings have the token. "
        "[AIRBYTE_EVENTS_PUBLIC_URL]",
        "--url",
    ),
]
Keep = Annotated[
    Path | None, option("FILE", "File for the previous URLs. [default: a file in the user's data folder]", "--keep")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The instance, workspaces and listener of a command."""

    name: str
    instance: InstanceSettings
    listener: Address
    workspaces: Collection[str]
    backup: Backup
    receiver: ReceiverURLs

    @classmethod
    def of(
        cls,
        settings: Settings,
        instance: str | None,
        workspaces: list[str] | None,
        url: str | None,
        listener: str | None,
        keep: Path | None,
    ) -> Plan:
        name, of_instance = choose_instance(settings, instance, why="reads and changes Airbyte's workspaces")
        backup = Backup(keep or default_file(name), of_instance.airbyte_url)
        named = [options.uuid("--workspace", each) for each in workspaces or ()]
        return cls(
            name=name,
            instance=of_instance,
            listener=Address.of(settings, listener),
            workspaces=named or of_instance.workspace_ids,
            backup=backup,
            receiver=ReceiverURLs.of(
                settings, name, address_of("--url", url) if url else settings.public_url, backup.digests
            ),
        )

    async def make(self, airbyte: AirbyteClient, changes: Sequence[Change]) -> None:
        """Save the previous webhooks, then change them in Airbyte."""
        if changes:
            self.backup.add(changes, self.receiver)
            # Before anything is changed: the previous URLs are nowhere else.
            self.backup.save()
            await apply(airbyte, changes)

    async def prove(self) -> Proof:
        """Send a test through the webhook URL, by Airbyte itself if possible, and find it at the listener."""
        async with open_airbyte(self.instance) as airbyte, open_listener(self.listener) as api:
            where = f"{self.receiver.base}/webhooks/{self.name}/…"
            return await prove_by_airbyte(airbyte, self.receiver.url, where, api)

    async def find_workspaces(self, airbyte: AirbyteClient) -> list[Workspace]:
        """Return the workspaces that are named, or the only one.

        :raises SettingsError: if none is named and there are several.
        :raises AirbyteError: if their notification settings can't be read; the message has the remedy.
        """
        try:
            found = await read_workspaces(airbyte, self.workspaces)
        except NoNotifications as exc:
            raise AirbyteError(f"{exc}; {exc.remedy(self.receiver)}") from exc
        except NotFound as exc:
            named = " or ".join(self.workspaces)
            raise AirbyteError(f"Airbyte has no workspace {named} that these credentials may read ({exc})") from exc
        if len(found) != 1 and not self.workspaces:
            known = ", ".join(f"{each.id} ({each.name})" for each in found) or "none"
            raise SettingsError(f"--workspace: not set, and Airbyte has: {known}")
        return found

"""Webhooks of Airbyte's workspaces, and the changes that point them at the listener."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from airbyte_events._utils import json_values
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.airbyte.notification_kinds import SETTINGS
from airbyte_events.errors import AirbyteError, SettingsError
from airbyte_events.listener.settings import Settings

KINDS = tuple(SETTINGS)
"""The notification settings of a workspace, each with a URL."""

REQUIRED = tuple(name for name, kind in SETTINGS.items() if kind.status is not None)
"""The kinds that announce a completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """The webhook of a notification setting. Its ``repr`` holds no secret.

    :param url: None if none is set.
    """

    enabled: bool
    url: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, value: object) -> Webhook:
        """Read a setting of Airbyte's API."""
        webhook = json_values.mapping(json_values.mapping(value).get("webhook"))
        return cls(enabled=webhook.get("enabled") is True, url=json_values.text(webhook.get("url")))

    def data(self) -> dict[str, Any]:
        return {"webhook": {"enabled": self.enabled, "url": self.url or ""}}

    @property
    def live(self) -> str | None:
        """The URL that notifications are sent to; None if they are sent nowhere."""
        return self.url if self.enabled else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverURLs:
    """The listener's webhook URLs of one instance. Its ``repr`` holds no secret.

    :param tokens: the webhook tokens that the receiver accepts.
    :param base: the address at which Airbyte reaches the listener; None if unknown: then any host counts.
    :param digests: of the URLs that install set, with any token.
    """

    instance: str
    tokens: tuple[str, ...] = field(repr=False)
    base: str | None = None
    digests: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, settings: Settings, instance: str, base: str | None, digests: frozenset[str] = frozenset()
    ) -> ReceiverURLs:
        """Return those of an instance, by the settings' webhook tokens."""
        tokens = tuple(token.get_secret_value() for token in settings.webhook_tokens)
        return cls(instance=instance, tokens=tokens, base=base, digests=digests)

    @property
    def url(self) -> str:
        """The URL to set.

        :raises SettingsError: if a part of it is not known.
        """
        if self.base is None:
            raise SettingsError(
                "--url: not set, nor AIRBYTE_EVENTS_PUBLIC_URL: write the address at which Airbyte reaches the "
                "listener, for example --url https://events.example.com"
            )
        if not self.tokens:
            raise SettingsError(
                "AIRBYTE_EVENTS_WEBHOOK_TOKENS: not set: write the last part of the webhook URL that serve prints, for "
                "example AIRBYTE_EVENTS_WEBHOOK_TOKENS_FILE=/run/secrets/webhook-tokens"
            )
        return f"{self.base}/webhooks/{self.instance}/{self.tokens[0]}"

    def includes(self, url: str | None) -> bool:
        """Return whether a URL is one of them, on any host."""
        if url is None:
            return False
        match = re.search(r"/webhooks/([^/?#]+)/([^/?#]+)$", url)
        known = match is not None and match[1] == self.instance and match[2] in self.tokens
        return known or digest(url) in self.digests

    def is_current(self, url: str | None) -> bool:
        """Return whether a URL is one of them, at the current address."""
        if url is None or not self.includes(url):
            return False
        return self.base is None or url.startswith(f"{self.base}/webhooks/")


class NoNotifications(AirbyteError):
    """Airbyte's API has no notification settings: up to release 1.5 only its own pages have them."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"this Airbyte's API has no notification settings (workspace {name}), as in all releases up to 1.5"
        )

    @staticmethod
    def remedy(receiver: ReceiverURLs) -> str:
        """Return the remedy in Airbyte's pages, with the URL without its token."""
        return (
            "set it in Airbyte's pages: under Settings, Notifications, for successful and failed syncs, write "
            f"{receiver.base or 'https://LISTENER'}/webhooks/{receiver.instance}/TOKEN with your webhook token, then "
            "press Test"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A workspace, with its webhooks by notification setting."""

    id: str
    name: str
    webhooks: dict[str, Webhook]

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Workspace:
        """Read a workspace of Airbyte's API.

        :raises NoNotifications: if it has no notification settings.
        """
        id_ = json_values.text(fields.get("workspaceId"))
        if id_ is None:
            raise AirbyteError("Airbyte lists a workspace without an id")
        name, settings = json_values.text(fields.get("name")) or id_, fields.get("notifications")
        if not isinstance(settings, dict):
            raise NoNotifications(name)
        return cls(id=id_, name=name, webhooks={kind: Webhook.of(settings.get(kind)) for kind in KINDS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A webhook of a workspace, and its replacement."""

    workspace: Workspace
    kind: str
    after: Webhook

    @property
    def before(self) -> Webhook:
        return self.workspace.webhooks[self.kind]

    def data(self, receiver: ReceiverURLs) -> dict[str, str]:
        before, after = redacted(self.before, receiver), redacted(self.after, receiver)
        named = {"workspace_id": self.workspace.id, "workspace": self.workspace.name, "kind": self.kind}
        return named | {"before": before, "after": after}


async def read_workspaces(airbyte: AirbyteClient, named: Collection[str]) -> list[Workspace]:
    """Return the workspaces that are named, else all."""
    if named:
        return [Workspace.of(await airbyte.get_workspace(id_)) for id_ in named]
    return [Workspace.of(each) for each in await airbyte.list_workspaces()]


async def apply(airbyte: AirbyteClient, changes: Collection[Change]) -> None:
    """Change Airbyte's settings, and check that they are changed.

    :raises AirbyteError: if they are not.
    """
    by_workspace: dict[str, dict[str, Any]] = {}
    for change in changes:
        by_workspace.setdefault(change.workspace.id, {})[change.kind] = change.after.data()
    for id_, notifications in by_workspace.items():
        await airbyte.set_notifications(id_, notifications)
        now = Workspace.of(await airbyte.get_workspace(id_))
        for kind, wanted in notifications.items():
            if now.webhooks[kind].live != Webhook.of(wanted).live:
                raise AirbyteError(f"Airbyte accepted the change of workspace {id_}, but has another {kind} URL")


def digest(url: str) -> str:
    """Return the digest of a URL, which distinguishes it without revealing it."""
    return hashlib.sha256(url.encode()).hexdigest()


def redacted(webhook: Webhook, receiver: ReceiverURLs) -> str:
    """Return a webhook for display: without its token or a chat's path."""
    if webhook.url is None:
        return "nowhere"
    match = re.match(
        r"(https?://)(?:[^/?#@]*@)?((?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?)(?=[/?#]|$)", webhook.url
    )
    host = "an invalid URL" if match is None else f"{match[1]}{match[2]}"
    if receiver.includes(webhook.url):
        text = f"{host}/webhooks/{receiver.instance}/…"
        if receiver.tokens and not webhook.url.endswith(f"/{receiver.tokens[0]}"):
            text += " (another token)"
    else:
        text = f"{host}/… ({digest(webhook.url)[:12]})"
    return text if webhook.enabled else f"nowhere (switched off: {text})"


def plan_install(workspaces: Iterable[Workspace], kinds: Collection[str], receiver: ReceiverURLs) -> Iterator[Change]:
    """Return the changes that point these kinds at the listener, and replace its outdated URLs in any kind."""
    after = Webhook(enabled=True, url=receiver.url)
    for workspace in workspaces:
        for kind, webhook in workspace.webhooks.items():
            sent = webhook.enabled and receiver.includes(webhook.url)
            if (kind in kinds or sent) and webhook != after:
                yield Change(workspace=workspace, kind=kind, after=after)

"""Where Airbyte's workspaces send notifications to: what stands there, what should, and what stood there before."""

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

KINDS = tuple(SETTINGS)
"""The kinds of notification that have a URL each, as Airbyte's API calls them."""

NEEDED = tuple(name for name, kind in SETTINGS.items() if kind.status is not None)
"""The kinds that announce a completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where a kind of notification goes. Its ``repr`` holds no secret.

    :param url: None if none is set.
    """

    enabled: bool
    url: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, value: object) -> Webhook:
        """What Airbyte's API says of a kind."""
        webhook = json_values.mapping(json_values.mapping(value).get("webhook"))
        return cls(enabled=webhook.get("enabled") is True, url=json_values.text(webhook.get("url")))

    def data(self) -> dict[str, Any]:
        """The same for Airbyte's API."""
        return {"webhook": {"enabled": self.enabled, "url": self.url or ""}}

    @property
    def live(self) -> bool:
        """Whether something is sent there."""
        return self.enabled and self.url is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """The listener's webhook URLs of one instance. Its ``repr`` holds no secret.

    :param instance: its name.
    :param tokens: those that open the receiver.
    :param base: where Airbyte reaches it; None if that is not known: then any host counts.
    :param digests: of URLs that were set by us, with whatever token.
    """

    instance: str
    tokens: tuple[str, ...] = field(repr=False)
    base: str | None = None
    digests: frozenset[str] = frozenset()

    @property
    def url(self) -> str:
        """The one to set.

        :raises SettingsError: if not all of it is known.
        """
        if self.base is None:
            raise SettingsError(
                "--url: not set, nor AIRBYTE_EVENTS_PUBLIC_URL: where does Airbyte reach the listener? For example "
                "--url https://events.example.com"
            )
        if not self.tokens:
            raise SettingsError(
                "AIRBYTE_EVENTS_WEBHOOK_TOKENS: not set: the last part of the webhook URL that serve printed when "
                "it made its tokens; for example AIRBYTE_EVENTS_WEBHOOK_TOKENS_FILE=/run/secrets/webhook-tokens"
            )
        return f"{self.base}/webhooks/{self.instance}/{self.tokens[0]}"

    def has(self, url: str | None) -> bool:
        """Whether a URL is one of them, on whatever host."""
        if url is None:
            return False
        match = re.search(r"/webhooks/([^/?#]+)/([^/?#]+)$", url)
        known = match is not None and match[1] == self.instance and match[2] in self.tokens
        return known or digest(url) in self.digests

    def right(self, url: str | None) -> bool:
        """Whether a URL leads to the listener as far as is known."""
        if url is None or not self.has(url):
            return False
        return self.base is None or url.startswith(f"{self.base}/webhooks/")


class NoNotifications(AirbyteError):
    """Airbyte's API knows nothing of notifications: releases up to 1.5, where its own pages alone show and set them."""

    def __init__(self, name: str) -> None:
        super().__init__(f"this Airbyte's API has no notification settings (workspace {name}), as up to release 1.5")

    @staticmethod
    def remedy(ours: Ours) -> str:
        """Return what to do in Airbyte's pages; the URL without its token."""
        return (
            "set it in Airbyte's pages: under Settings, Notifications, successful and failed syncs send to "
            f"{ours.base or 'https://LISTENER'}/webhooks/{ours.instance}/TOKEN, with your webhook token at its end; "
            "then press Test there"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A workspace and where its notifications go, by kind."""

    id: str
    name: str
    webhooks: dict[str, Webhook]

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Workspace:
        """What Airbyte's API says of it.

        :raises NoNotifications: if it says nothing of its notifications.
        """
        id_ = json_values.text(fields.get("workspaceId"))
        if id_ is None:
            raise AirbyteError("Airbyte tells of a workspace without an id")
        name, told = json_values.text(fields.get("name")) or id_, fields.get("notifications")
        if not isinstance(told, dict):
            raise NoNotifications(name)
        return cls(id=id_, name=name, webhooks={kind: Webhook.of(told.get(kind)) for kind in KINDS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be other in a workspace."""

    workspace: Workspace
    kind: str
    after: Webhook

    @property
    def before(self) -> Webhook:
        return self.workspace.webhooks[self.kind]


async def find_workspaces(airbyte: AirbyteClient, named: Collection[str]) -> list[Workspace]:
    """Those that are named, or the only one that there is.

    :raises SettingsError: if none is named and there are several.
    """
    if named:
        return [Workspace.of(await airbyte.get_workspace(id_)) for id_ in named]
    found = [Workspace.of(each) for each in await airbyte.list_workspaces()]
    if len(found) != 1:
        known = ", ".join(f"{each.id} ({each.name})" for each in found) or "none"
        raise SettingsError(f"--workspace: not set, and these are there: {known}")
    return found


async def apply(airbyte: AirbyteClient, changes: Collection[Change]) -> None:
    """Have Airbyte make these changes, and see that it did.

    :raises AirbyteError: if it did not.
    """
    by_workspace: dict[str, dict[str, Any]] = {}
    for change in changes:
        by_workspace.setdefault(change.workspace.id, {})[change.kind] = change.after.data()
    for id_, notifications in by_workspace.items():
        await airbyte.set_notifications(id_, notifications)
        now = Workspace.of(await airbyte.get_workspace(id_))
        for kind, wanted in notifications.items():
            if now.webhooks[kind].live != Webhook.of(wanted).live or (
                Webhook.of(wanted).live and now.webhooks[kind].url != Webhook.of(wanted).url
            ):
                raise AirbyteError(f"Airbyte took the change of workspace {id_}, but {kind} is not what was asked for")


def digest(url: str) -> str:
    """What tells one URL from another without giving it away."""
    return hashlib.sha256(url.encode()).hexdigest()


def masked(webhook: Webhook, ours: Ours) -> str:
    """Where something goes, as it may be shown: no token, no path of a chat."""
    if webhook.url is None:
        return "nowhere"
    match = re.match(
        r"(https?://)(?:[^/?#@]*@)?((?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?)(?=[/?#]|$)", webhook.url
    )
    host = "an address that is none" if match is None else f"{match[1]}{match[2]}"
    if ours.has(webhook.url):
        text = f"{host}/webhooks/{ours.instance}/…"
        if ours.tokens and not webhook.url.endswith(f"/{ours.tokens[0]}"):
            text += " (another token)"
    else:
        text = f"{host}/… ({digest(webhook.url)[:12]})"
    return text if webhook.enabled else f"nowhere (switched off: {text})"


def plan_install(workspaces: Iterable[Workspace], kinds: Collection[str], ours: Ours) -> Iterator[Change]:
    """What has to change for these kinds to be sent to us, and those that are already by our URL of now."""
    after = Webhook(enabled=True, url=ours.url)
    for workspace in workspaces:
        for kind, webhook in workspace.webhooks.items():
            sent = webhook.enabled and ours.has(webhook.url)
            if (kind in kinds or sent) and webhook != after:
                yield Change(workspace=workspace, kind=kind, after=after)

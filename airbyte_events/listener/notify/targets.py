"""The targets of outgoing notifications."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import httpx
from standardwebhooks import Webhook

from airbyte_events._utils.json_values import mapping, parse_object, text
from airbyte_events._utils.times import utcnow
from airbyte_events.errors import SettingsError
from airbyte_events.events import JobEvent
from airbyte_events.events.status import reported_job_type
from airbyte_events.listener.forwarding.targets import Sending, parse_url, shown
from airbyte_events.listener.notify.connections import Connection
from airbyte_events.listener.settings import Settings
from airbyte_events.listener.settings.notify import NotifySettings
from airbyte_events.listener.settings.values import is_loopback
from airbyte_events.store.records import Delivery

PREFIX = "notify/"
"""What the names of these targets begin with in the store, beside those of forwarding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyTarget:
    """A URL that completions are announced to. Its ``repr`` contains no secret.

    :param name: :data:`PREFIX` and the name in the settings, used in the store.
    :param shown: scheme and host of the URL.
    """

    name: str
    shown: str
    url: httpx.URL = field(repr=False)
    settings: NotifySettings = field(repr=False)

    def __str__(self) -> str:
        return f"{self.shown} ({self.name})"

    @property
    def setting(self) -> str:
        """The setting that has the URL."""
        return f"notify.{self.settings.name}.url"

    def accepts(self, event: JobEvent) -> bool:
        """Return whether an event matches the filters that need nothing but the event.

        A further filter belongs here, and in :class:`~airbyte_events.listener.settings.notify.NotifySettings`.
        """
        wanted = self.settings
        return (
            event.terminal
            and (not wanted.instances or event.ref.instance in wanted.instances)
            and event.status.value in wanted.statuses
            and reported_job_type(event.job_type or "sync") in map(reported_job_type, wanted.job_types)
        )

    def needs_connection(self, event: JobEvent) -> bool:
        """Return whether :meth:`accepts_connection` must know more than the event's connection id."""
        wanted = self.settings
        return bool(wanted.workspaces) or (
            any(map(_is_name, wanted.connections)) and not _has(wanted.connections, [event.connection_id])
        )

    def accepts_connection(self, event: JobEvent, found: Connection) -> bool:
        """Return whether an event matches the filters by connection and workspace.

        One too many is better than a missed failure: an unknown name or workspace matches.
        """
        wanted = self.settings
        return _matches(wanted.connections, event.connection_id, found.name) and _matches(
            wanted.workspaces, found.workspace_id, found.workspace
        )

    def order(self, delivery: Delivery) -> str | None:
        """Return the connection: its events are sent in order."""
        return text(_data(delivery).get("connection_id"))

    async def sending(self, delivery: Delivery) -> Sending:
        """Return the request: a CloudEvent in structured mode, signed after Standard Webhooks.

        The message id is the event's, the same at each attempt
        (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
        """
        content = delivery.notification.body
        id_ = str(parse_object(content).get("id"))
        headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
        return Sending(content, headers | self._signature(id_, content))

    def _signature(self, id_: str, content: bytes) -> dict[str, str]:
        if self.settings.secret is None:
            return {}
        now = utcnow()
        signature = Webhook(self.settings.secret.get_secret_value()).sign(id_, now, content.decode())
        return {"webhook-id": id_, "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}


def notify_targets(tables: Iterable[NotifySettings], instance: str | None = None) -> dict[str, NotifyTarget]:
    """Return the targets of the tables ``[[notify]]`` by name.

    :param instance: only those that its completions are announced to.
    """
    targets = {}
    for settings in tables:
        if instance is None or not settings.instances or instance in settings.instances:
            url = parse_url(settings.url.get_secret_value())
            name = PREFIX + settings.name
            targets[name] = NotifyTarget(name=name, shown=shown(url), url=url, settings=settings)
    return targets


def refuse_own(settings: Settings, targets: Iterable[NotifyTarget]) -> None:
    """Refuse a target that is an address of this listener.

    :raises SettingsError: if there is one.
    """
    scheme = "http" if settings.tls_certfile is None else "https"
    bound = [(settings.host, settings.port), *([settings.webhook_apart] if settings.webhook_apart else [])]
    own = [httpx.URL(scheme=scheme, host=host, port=port) for host, port in bound]
    own += [httpx.URL(settings.public_url)] if settings.public_url else []
    for target in targets:
        for address in own:
            local = is_loopback(target.url.host) and (is_loopback(address.host) or address.host in ("0.0.0.0", "::"))  # noqa: S104
            if (
                (target.url.host == address.host or local)
                and _port(target.url) == _port(address)
                and target.url.path.startswith(address.path.rstrip("/"))
            ):
                raise SettingsError(
                    f"{target.setting}: {target.shown} is this listener; write another URL, for example"
                    " https://example.com/airbyte-events"
                )


def body_of(event: JobEvent, source: str) -> bytes:
    """Return the body that the outbox stores: the event's envelope. It is the same in every process.

    :param source: the Airbyte instance's URL.
    """
    return json.dumps(event.envelope(source), ensure_ascii=False, separators=(",", ":")).encode()


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _data(delivery: Delivery) -> Mapping[str, object]:
    try:
        return mapping(parse_object(delivery.notification.body).get("data"))
    except ValueError:
        return {}


def _has(wanted: Iterable[str], known: Iterable[str | None]) -> bool:
    names = {name.casefold() for name in wanted}
    return any(name is not None and name.casefold() in names for name in known)


def _matches(wanted: Sequence[str], id_: str | None, name: str | None) -> bool:
    unsure = id_ is None or (name is None and any(map(_is_name, wanted)))
    return not wanted or unsure or _has(wanted, (id_, name))


def _is_name(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return True
    return False

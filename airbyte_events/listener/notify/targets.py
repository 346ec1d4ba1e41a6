"""The targets of outgoing notifications."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import anyio
import httpx
from standardwebhooks import Webhook

from airbyte_events._utils.json_values import mapping, parse_object, text
from airbyte_events._utils.networks import plain_address
from airbyte_events._utils.times import utcnow
from airbyte_events.errors import SettingsError
from airbyte_events.events import JobEvent
from airbyte_events.jobs import DescribesConnections
from airbyte_events.listener.forwarding.targets import DeliveryTarget, Parcel, Sending, parse_url, shown
from airbyte_events.listener.notify.chats import CHATS
from airbyte_events.listener.notify.filters import CompletionFilter
from airbyte_events.listener.notify.messages import Completion, cause_of, message_of
from airbyte_events.listener.settings import Settings
from airbyte_events.listener.settings.notify import NotifySettings
from airbyte_events.store.records import Delivery

PREFIX = "notify/"
"""The prefix of these targets' names in the store, which also has the targets of forwarding."""

_NAMES_SECONDS = 5.0
"""The longest time in which the names of a message's connections are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyTarget(DeliveryTarget):
    """A URL that completions are announced to, named :data:`PREFIX` and its name in the settings."""

    settings: NotifySettings = field(repr=False)

    @property
    def filter(self) -> CompletionFilter:
        """The completions that are announced to it."""
        return CompletionFilter(self.settings)

    @property
    def setting(self) -> str:
        return f"notify.{self.settings.name}.url"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEventsTarget(NotifyTarget):
    """A URL that receives each completion as a signed CloudEvent, in order for each connection."""

    ordered: ClassVar[bool] = True

    def order(self, delivery: Delivery) -> str | None:
        return text(_data(delivery).get("connection_id"))

    async def sending(self, parcel: Parcel) -> Sending:
        """Return the request: a CloudEvent in structured mode, signed after Standard Webhooks.

        The message id is the event's, the same at each attempt
        (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
        """
        content = parcel.shown[0].notification.body
        id_, now = str(parse_object(content).get("id")), utcnow()
        key = self.settings.secret.get_secret_value() if self.settings.secret else ""
        headers = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(key).sign(id_, now, content.decode()),
        }
        return Sending(content, headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTarget(NotifyTarget):
    """A chat that receives one message for all completions of a cause.

    :param connections: finds the names that messages show.
    """

    connections: DescribesConnections | None = field(repr=False)

    @property
    def pace(self) -> float:
        return self.settings.group_seconds

    def cause(self, delivery: Delivery) -> str:
        """Return what the completions of a message have in common."""
        try:
            return cause_of(_completion(delivery).event)
        except ValueError:
            return ""

    async def sending(self, parcel: Parcel) -> Sending:
        found = [_completion(delivery) for delivery in parcel.shown]
        if self.connections is not None:
            with anyio.move_on_after(_NAMES_SECONDS):
                for place, each in enumerate(found):
                    if (id_ := each.event.connection_id) is not None:
                        named = await self.connections.describe_connection(id_, workspace=True)
                        found[place] = replace(each, connection=named)
        message = message_of(found, len(parcel.received), various=parcel.various)
        body = CHATS[self.settings.type](message)
        return Sending(
            json.dumps(body, ensure_ascii=False).encode(), {"Content-Type": "application/json; charset=utf-8"}
        )


def notify_targets(
    tables: Iterable[NotifySettings], instance: str | None = None, connections: DescribesConnections | None = None
) -> dict[str, NotifyTarget]:
    """Return the targets of the tables ``[[notify]]`` by name.

    :param instance: only those that its completions are announced to.
    """
    targets: dict[str, NotifyTarget] = {}
    for settings in tables:
        if instance is None or not settings.instances or instance in settings.instances:
            url = parse_url(settings.url.get_secret_value())
            name = PREFIX + settings.name
            common: dict[str, Any] = {"name": name, "shown": shown(url), "url": url, "settings": settings}
            if settings.type == "cloudevents":
                targets[name] = CloudEventsTarget(**common)
            else:
                targets[name] = ChatTarget(**common, connections=connections)
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
            there, here = _host(target.url), _host(address)
            if (
                (there == here or (_is_here(here) and (_is_here(there) or _is_interface(there, here))))
                and _port(target.url) == _port(address)
                and f"{target.url.path}/".startswith(f"{address.path.rstrip('/')}/")
            ):
                raise SettingsError(
                    f"{target.setting}: {target.shown} is this listener; write another URL, for example"
                    " https://example.com/airbyte-events"
                )


def body_of(event: JobEvent, source: str) -> bytes:
    """Return the body that the outbox stores: the event's envelope. It is the same in every process."""
    return json.dumps(event.envelope(source), ensure_ascii=False, separators=(",", ":")).encode()


def _host(url: httpx.URL) -> str:
    """Return the host in one spelling: also of what only resolvers read as an address, ``127.1`` and ``0x7f000001``."""
    host = url.host.rstrip(".").lower()
    with contextlib.suppress(OSError, ValueError):
        return socket.inet_ntoa(socket.inet_aton(host))
    return str(plain_address(host) or host)


def _is_here(host: str) -> bool:
    """Return whether it is a name or an address of this machine: also the unspecified one, to which systems connect
    so.
    """
    address = plain_address(host)
    if address is not None:
        return address.is_loopback or address.is_unspecified
    # RFC 6761, 6.3: all names below localhost are this machine, too.
    return f".{host}".endswith(".localhost") or host == socket.gethostname().lower()


def _is_interface(host: str, bound: str) -> bool:
    """Return whether it is an address of one of this machine's interfaces, and the listener is bound to all of them.

    To an address of its own, a system sends from that address; to connect a UDP socket sends nothing.
    """
    address, all_of_them = plain_address(host), plain_address(bound)
    if address is None or all_of_them is None or not all_of_them.is_unspecified:
        return False
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe,
    ):
        probe.connect((host, 9))
        return plain_address(probe.getsockname()[0]) == address
    return False


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _data(delivery: Delivery) -> Mapping[str, object]:
    try:
        return mapping(parse_object(delivery.notification.body).get("data"))
    except ValueError:
        return {}


def _completion(delivery: Delivery) -> Completion:
    """:raises ValueError: if the body is no event's; the message completes "not sent, as …"."""
    try:
        envelope = parse_object(delivery.notification.body)
        return Completion(event=JobEvent.from_envelope(envelope), source=text(envelope.get("source")) or "")
    except ValueError:
        raise ValueError("its body is not an event") from None

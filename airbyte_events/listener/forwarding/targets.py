"""The targets of forwarding. Their URLs come from the settings only, and are secrets."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import ClassVar, NamedTuple

import httpx

from airbyte_events.airbyte.notification_kinds import SETTINGS, NotificationKind
from airbyte_events.errors import SettingsError
from airbyte_events.listener.forwarding.bodies import readable, text_only, valid
from airbyte_events.store.records import Delivery

FORWARDED = "airbyte-events-forwarded"
"""The header of forwarded notifications. A notification with it is not forwarded again, so listeners make no loop."""

_CHAT = "chat.googleapis.com"


class Sending(NamedTuple):
    """A request to a target: its body and its headers."""

    content: bytes
    headers: Mapping[str, str]


SHOWN = 10
"""Deliveries of a parcel that a request can show."""


@dataclass(slots=True, kw_only=True)
class Parcel:
    """Deliveries of one request.

    :param shown: the first :data:`SHOWN` of them.
    :param received: when the notification of each was received, by its id.
    :param attempts: the largest number of attempts of one so far.
    :param various: whether they have no cause in common.
    """

    shown: list[Delivery] = field(default_factory=list)
    received: dict[int, datetime] = field(default_factory=dict)
    attempts: int = 0
    various: bool = False

    @classmethod
    def of(cls, delivery: Delivery) -> Parcel:
        parcel = cls()
        parcel.add(delivery)
        return parcel

    def add(self, delivery: Delivery) -> None:
        self.received[delivery.id] = delivery.notification.received_at
        self.attempts = max(self.attempts, delivery.attempts)
        if len(self.shown) < SHOWN and len(self.shown) < len(self.received):
            self.shown.append(delivery)

    def __str__(self) -> str:
        """Return the id, or the first one and the number of further ones."""
        more = len(self.received) - 1
        return f"{next(iter(self.received))}" + (f"+{more}" if more else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryTarget(ABC):
    """A URL that the outbox delivers to. Its ``repr`` and ``str`` contain no secret.

    :param name: in the store.
    :param shown: scheme and host of the URL.
    """

    name: str
    shown: str
    url: httpx.URL = field(repr=False)
    ordered: ClassVar[bool] = False
    """Whether the order of deliveries with the same :meth:`order` is kept; otherwise a retry delays no other."""

    def __str__(self) -> str:
        return f"{self.shown} ({self.name})"

    @property
    @abstractmethod
    def setting(self) -> str:
        """The setting that has the URL."""

    @property
    def pace(self) -> float:
        """The seconds from one turn to the next, with all deliveries of a cause in one request; 0: each alone."""
        return 0.0

    def order(self, delivery: Delivery) -> str | None:
        """Return a key: deliveries with the same key are sent in order; None for any order."""
        return None

    def cause(self, delivery: Delivery) -> str:
        """Return a key: deliveries with the same key are sent in one request. By default, each is sent alone."""
        return str(delivery.id)

    @abstractmethod
    async def sending(self, parcel: Parcel) -> Sending:
        """Return the request that delivers.

        :raises ValueError: if nothing can be sent; the message completes "not sent, as …".
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(DeliveryTarget):
    """A URL that notifications are forwarded to, named by its digest.

    :param kinds: the kinds that are forwarded; None for all.
    """

    kinds: frozenset[NotificationKind] | None = None

    @property
    def setting(self) -> str:
        return "AIRBYTE_EVENTS_FORWARD_URLS"

    def accepts(self, kind: NotificationKind) -> bool:
        """Return whether notifications of a kind are forwarded there.

        Kinds without a URL in Airbyte (a test, *queued*, an unknown one) are forwarded to every target.
        """
        return self.kinds is None or kind in self.kinds or not kind.settings

    async def sending(self, parcel: Parcel) -> Sending:
        return Sending(self.content(parcel.shown[0].notification.body), {"Content-Type": "application/json"})

    def content(self, body: bytes) -> bytes:
        """Return the body to send for a notification: its own bytes if they are JSON and the target is not Google Chat.

        :raises ValueError: if nothing can be sent; the message completes "not sent, as …".
        """
        return text_only(body) if self.url.host == _CHAT else valid(body)


class Targets(dict[str, Target]):
    """An instance's targets by name.

    :param entries: each a URL, or ``KIND=URL`` with one of :data:`~airbyte_events.airbyte.notification_kinds.SETTINGS`.
    :raises ValueError: if one is neither; the message does not repeat it.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        super().__init__()
        for target in map(_parse, entries):
            known = self.get(target.name, target)
            both = None if known.kinds is None or target.kinds is None else known.kinds | target.kinds
            self[target.name] = replace(target, kinds=both)

    def __repr__(self) -> str:
        return f"<Targets {', '.join(map(str, self.values()))}>"

    def of(self, kind: NotificationKind, body: bytes) -> list[str]:
        """Return the names of the targets that a notification is forwarded to.

        A notification without text has none: Airbyte sends no such notification, and chats refuse it.
        """
        accepting = [target.name for target in self.values() if target.accepts(kind)]
        return accepting if accepting and readable(body) is not None else []


def refuse_loops(targets: Mapping[str, Mapping[str, DeliveryTarget]], is_webhook_token: Callable[[str], bool]) -> None:
    """Refuse a target that is the listener's own receiver, by whatever host name.

    :param targets: by instance.
    :raises SettingsError: if there is one.
    """
    for instance, each in targets.items():
        for target in each.values():
            match = re.search(r"/webhooks/([^/]+)/([^/]+)/?$", target.url.path)
            if match and match[1] in targets and is_webhook_token(match[2]):
                raise SettingsError(
                    f"{target.setting}: {target.shown} with a webhook token of this listener is its own"
                    f" receiver (instance {instance}); write another URL, for example {_EXAMPLE}"
                )


_EXAMPLE = "https://hooks.slack.com/services/T000/B000/XXXX"


def _parse(entry: str) -> Target:
    text = entry.strip()
    kinds = None
    if not re.match("https?:", text, re.IGNORECASE):
        kind, equals, text = text.partition("=")
        if not equals:
            raise ValueError(
                "an entry is neither an http:// or https:// URL nor KIND=URL; write a comma in a URL as %2C"
            )
        if kind.strip() not in SETTINGS:
            raise ValueError(f"the kind before = must be one of {', '.join(SETTINGS)}")
        kinds = frozenset({SETTINGS[kind.strip()]})
    url = parse_url(text)
    return Target(name=hashlib.sha256(str(url).encode()).hexdigest()[:12], shown=shown(url), url=url, kinds=kinds)


def parse_url(text: str) -> httpx.URL:
    """Return the URL of a target.

    :raises ValueError: if it is none; the message does not repeat it.
    """
    text = text.strip()
    # Without the context, which contains the value.
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise ValueError("an entry has no usable URL") from None
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > 65535 or re.search(r"[\s\\]", text):
        raise ValueError("an entry has no usable URL that begins with http:// or https:// and a host")
    if url.userinfo:
        raise ValueError("an entry has a user name in its URL; remove it")
    return url.copy_with(fragment=None)


def shown(url: httpx.URL) -> str:
    """Return scheme and host of a URL whose other parts are secret."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}/…"

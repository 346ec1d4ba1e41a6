"""Workspaces, connections and jobs."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from airbyte_events.airbyte.notification_kinds import SETTINGS
from airbyte_events.errors import AirbyteEventsError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from airbyte_events.events import JobError
    from airbyte_events.simulator.scripts import Script
    from airbyte_events.simulator.webhooks import Delivery

NEWEST = "2.1"
"""The release that is simulated by default."""

CLOUD = "cloud"
"""The release of Airbyte Cloud: the newest one."""


@dataclass(frozen=True, slots=True, order=True)
class Release:
    """A release of Airbyte, and how its APIs differ."""

    major: int
    minor: int
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> Release:
        """:raises ValueError: unless the text is two or three numbers, ``1.5`` or ``2.0.1``, or ``cloud``."""
        if text == CLOUD:
            text = NEWEST
        if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4}){1,2}", text):
            raise ValueError(f"a release is written like 1.5 or 2.0.1, or cloud, not {text[:40]!r}")
        return cls(*map(int, text.split(".")))

    @property
    def has_notifications(self) -> bool:
        """Whether workspaces have ``notifications``: not up to 1.5."""
        return self >= Release(1, 6)

    @property
    def lists_refreshes(self) -> bool:
        """Whether a list of jobs without ``jobType`` has refreshes: not up to 2.0.0."""
        return self > Release(2, 0, 0)


class Refused(AirbyteEventsError):
    """The state of a job or connection does not allow a request.

    :param reason: ``try-again-later`` or ``state-conflict``, as in Airbyte's problem documents.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def sample_id(kind: str, number: int) -> str:
    """Return the UUID of the n-th object of a kind: the same in every run, so that a DAG can name it."""
    return str(uuid5(NAMESPACE_URL, f"airbyte-events:simulator:{kind}:{number}"))


@dataclass(slots=True, kw_only=True)
class Workspace:
    """:param notifications: by kind, in the public API's shape: ``{"webhook": {"enabled": true, "url": …}}``."""

    id: str
    name: str
    notifications: dict[str, dict[str, Any]] = field(default_factory=dict)

    def set_webhook(self, url: str | None, kinds: Iterable[str] = tuple(SETTINGS)) -> None:
        """Set the URL of these notification settings; None disables them."""
        for kind in kinds:
            self.notifications.setdefault(kind, {})["webhook"] = {"enabled": url is not None, "url": url or ""}

    def webhook_url(self, kind: str) -> str | None:
        """Return the URL of a notification setting, if it is enabled."""
        webhook = self.notifications.get(kind, {}).get("webhook") or {}
        return (webhook.get("url") or None) if webhook.get("enabled") else None


@dataclass(slots=True, kw_only=True)
class Actor:
    """A source or a destination.

    :param kind: ``source`` or ``destination``.
    :param type: the connector's, such as ``postgres``.
    :param configuration: as the API returns it, with secrets masked.
    """

    kind: str
    id: str
    name: str
    type: str
    configuration: dict[str, Any] = field(default_factory=dict)


def sample_streams() -> dict[str, Any]:
    """Return a connection's default streams and namespace, in the public API's fields."""
    streams = [{"name": name, "namespace": "public", "syncMode": "full_refresh_append"} for name in ("orders", "items")]
    return {"configurations": {"streams": streams}, "namespaceDefinition": "destination", "prefix": ""}


@dataclass(slots=True, kw_only=True, eq=False)
class Connection:
    """:param streams: its streams and namespace, in the public API's fields.
    :param next_scripts: for the next jobs, one each, before ``script`` is used again.
    :param to_refresh: the streams of a requested refresh that has not started: the next sync becomes a refresh.
    """

    id: str
    name: str
    workspace_id: str
    source_id: str
    destination_id: str
    script: Script
    created_at: datetime
    active: bool = True
    streams: dict[str, Any] = field(default_factory=sample_streams)
    next_scripts: deque[Script] = field(default_factory=deque)
    jobs: list[Job] = field(default_factory=list)
    current: Job | None = None
    to_refresh: list[dict[str, str]] | None = None

    @property
    def stream_descriptors(self) -> list[dict[str, str]]:
        """The streams as the internal API names them."""
        return [
            {"name": stream["name"], **({"namespace": stream["namespace"]} if stream.get("namespace") else {})}
            for stream in self.streams["configurations"]["streams"]
        ]


class Counts(NamedTuple):
    """Synced records and bytes; None: no statistics."""

    records: int | None
    bytes: int | None


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
    """:param error: why it failed; None: it has not."""

    started_at: datetime
    ended_at: datetime | None = None
    error: JobError | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """:param turn: counts the changes, so that the timer of an earlier one does nothing.
    :param done: the progress then, from 0 to 1.
    :param cancelled_by: who cancelled it: ``user`` or ``airbyte``.
    :param history: (status, when) of every change.
    """

    id: int
    connection: Connection
    type: str
    script: Script
    status: str
    created_at: datetime
    updated_at: datetime
    scripted_at: datetime
    done: float = 0.0
    refreshed: list[dict[str, str]] | None = None
    attempts: list[Attempt] = field(default_factory=list)
    turn: int = 0
    ended_at: datetime | None = None
    records: int | None = None
    bytes: int | None = None
    error: JobError | None = None
    cancelled_by: str | None = None
    history: list[tuple[str, datetime]] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def terminal(self) -> bool:
        return self.ended_at is not None

    def progress(self, now: datetime) -> float:
        """Return the progress of the active job at that time, from 0 to 1."""
        return self.done + (1 - self.done) * self.script.progress((now - self.scripted_at).total_seconds())

    def counts(self, now: datetime) -> Counts:
        """Return the counts at that time, also while the job runs, from its first attempt on."""
        if self.terminal or not self.attempts:
            return Counts(self.records, self.bytes)
        script, done = self.script, self.progress(now)
        return Counts(*(None if total is None else int(total * done) for total in (script.records, script.bytes)))

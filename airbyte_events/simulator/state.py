"""Workspaces, connections and jobs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from airbyte_events.errors import AirbyteEventsError

if TYPE_CHECKING:
    from datetime import datetime

    from airbyte_events.events import JobError

    from .scripts import Script
    from .webhooks import Delivery

NOTIFICATION_KINDS = (
    "success",
    "failure",
    "connectionUpdate",
    "connectionUpdateActionRequired",
    "syncDisabled",
    "syncDisabledWarning",
)
"""The kinds of notification that a workspace has a webhook URL for, by the public API's names."""


class Refused(AirbyteEventsError):
    """The state of things does not allow it.

    :param reason: ``try-again-later`` or ``state-conflict``, as in Airbyte's problem documents.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def sample_id(kind: str, number: int) -> str:
    """The UUID of the n-th thing of that kind: the same in every run, so that a DAG can name it."""
    return str(uuid5(NAMESPACE_URL, f"airbyte-events:simulator:{kind}:{number}"))


@dataclass(slots=True, kw_only=True)
class Workspace:
    """:param notifications: by kind, in the public API's shape: ``{"webhook": {"enabled": true, "url": …}}``."""

    id: str
    name: str
    notifications: dict[str, dict[str, Any]] = field(default_factory=dict)

    def set_webhook(self, url: str | None, kinds: tuple[str, ...] = NOTIFICATION_KINDS) -> None:
        """Send notifications of these kinds there; None: nowhere."""
        for kind in kinds:
            self.notifications.setdefault(kind, {})["webhook"] = {"enabled": url is not None, "url": url or ""}

    def webhook_url(self, kind: str) -> str | None:
        """Where notifications of the kind go, if anywhere."""
        webhook = self.notifications.get(kind, {}).get("webhook") or {}
        return (webhook.get("url") or None) if webhook.get("enabled") else None


@dataclass(slots=True, kw_only=True)
class Actor:
    """A source or a destination.

    :param kind: ``source`` or ``destination``.
    :param type: the connector's, such as ``postgres``.
    :param configuration: as the API tells it: what is secret is blotted out.
    """

    kind: str
    id: str
    name: str
    type: str
    configuration: dict[str, Any] = field(default_factory=dict)


def sample_streams() -> dict[str, Any]:
    """What a connection moves, and where to, unless it is given something else; in the public API's fields."""
    streams = [{"name": name, "namespace": "public", "syncMode": "full_refresh_append"} for name in ("orders", "items")]
    return {"configurations": {"streams": streams}, "namespaceDefinition": "destination", "prefix": ""}


@dataclass(slots=True, kw_only=True, eq=False)
class Connection:
    """:param moves: what it moves, and where to, in the public API's fields.
    :param next_scripts: used up by the connection's next jobs, one each, before ``script`` is used again.
    """

    id: str
    name: str
    workspace_id: str
    source_id: str
    destination_id: str
    script: Script
    created_at: datetime
    active: bool = True
    moves: dict[str, Any] = field(default_factory=sample_streams)
    next_scripts: deque[Script] = field(default_factory=deque)
    jobs: list[Job] = field(default_factory=list)
    current: Job | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """:param turn: counts the job's moves, so that a timer of an earlier move comes to nothing.
    :param history: (status, when) of every change.
    """

    id: int
    connection: Connection
    type: str
    script: Script
    status: str
    created_at: datetime
    updated_at: datetime
    attempts: int = 0
    turn: int = 0
    ended_at: datetime | None = None
    records: int | None = None
    bytes: int | None = None
    error: JobError | None = None
    history: list[tuple[str, datetime]] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def terminal(self) -> bool:
        return self.ended_at is not None

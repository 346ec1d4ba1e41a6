"""The completions that a target receives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airbyte_events._utils.json_values import is_uuid
from airbyte_events.events import JobEvent
from airbyte_events.events.status import reported_job_type
from airbyte_events.jobs import Connection
from airbyte_events.listener.settings.notify import NotifySettings


@dataclass(frozen=True, slots=True)
class CompletionFilter:
    """The filters of a table ``[[notify]]``."""

    wanted: NotifySettings

    def accepts(self, event: JobEvent) -> bool:
        """Return whether an event matches the filters that need nothing but the event.

        A further filter belongs here.
        """
        wanted = self.wanted
        if wanted.instances and event.ref.instance not in wanted.instances:
            return False
        if event.signal is not None:
            return event.signal.kind.value in wanted.signals
        return (
            event.terminal
            and event.status.value in wanted.statuses
            and reported_job_type(event.job_type or "sync") in map(reported_job_type, wanted.job_types)
        )

    def needs_connection(self, event: JobEvent) -> bool:
        """Return whether :meth:`accepts_connection` must know more than the event's connection id."""
        wanted = self.wanted
        return bool(wanted.workspaces) or (
            not all(map(is_uuid, wanted.connections)) and not _has(wanted.connections, [event.connection_id])
        )

    def accepts_connection(self, event: JobEvent, found: Connection) -> bool:
        """Return whether an event matches the filters by connection and workspace.

        One too many is better than a missed failure: an unknown name or workspace matches.
        """
        wanted = self.wanted
        return _matches(wanted.connections, event.connection_id, found.name) and _matches(
            wanted.workspaces, found.workspace_id, found.workspace
        )


def _has(wanted: Iterable[str], known: Iterable[str | None]) -> bool:
    names = {name.casefold() for name in wanted}
    return any(name is not None and name.casefold() in names for name in known)


def _matches(wanted: Sequence[str], id_: str | None, name: str | None) -> bool:
    unsure = id_ is None or (name is None and not all(map(is_uuid, wanted)))
    return not wanted or unsure or _has(wanted, (id_, name))

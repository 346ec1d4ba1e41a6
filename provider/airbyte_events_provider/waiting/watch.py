"""Following the completions of connections' jobs, by the hub that all triggers of a triggerer share."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.errors import (
    AirbyteError,
    AirbyteStatusError,
    Forbidden,
    HubClosed,
    NotFound,
    SettingsError,
    Unprocessable,
)
from airbyte_events.events import EventFilter, JobEvent, JobStatus, parse_status
from airbyte_events.hub.position import Bookmark, Position
from airbyte_events_provider.config import poll_interval
from airbyte_events_provider.waiting.shared_hub import HubKey, SharedHub, shared_hub

logger = logging.getLogger(__name__)

_MOST_WORKSPACES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A filter of completed jobs.

    :param key: the hub.
    :param workspace_ids: only connections in these Airbyte workspaces (UUIDs, lower case); empty: all.
    :param poll_interval: seconds between polls without a listener; None: as Airflow's configuration says.
    """

    key: HubKey
    wanted: EventFilter
    workspace_ids: frozenset[str] = frozenset()
    poll_interval: float | None = None

    @property
    def interval(self) -> float:
        return poll_interval() if self.poll_interval is None else self.poll_interval


def several(values: str | Iterable[str] | None) -> list[str]:
    """Return one value, some or none as a sorted list without duplicates."""
    return sorted({values} if isinstance(values, str) else set(values or ()))


def terminal_status(name: str) -> JobStatus:
    """:raises ValueError: if no job completes with it."""
    status = parse_status(name)
    if not status.terminal:
        raise ValueError(f"statuses={name!r}: no job completes with it: write succeeded, failed or cancelled")
    return status


async def watch_on(watch: Watch, place: Position, *, forever: bool = True) -> AsyncGenerator[JobEvent | Bookmark, None]:
    """Yield each matching job once, and now and then a mark: all up to there was yielded.

    When the hub closes, the watch goes on with the next one.

    :param place: where to begin; it moves on as jobs are yielded.
    :param forever: log every failure, and go on where the watch was.
    :raises SettingsError: unless ``forever``, if the Airflow connection of the Airbyte is missing or wrong.
    """
    failures = 0
    while True:
        try:
            async with aclosing(_watch_once(watch, place)) as items:
                async for item in items:
                    failures = 0
                    yield item
        except HubClosed as exc:
            logger.debug("watching by another hub: reason=%s", exc)
        except Exception as exc:
            # A watch that ends is a DAG that silently never runs again.
            if not forever:
                raise
            if isinstance(exc, SettingsError):
                logger.error("watch failed, trying again: %s", exc)
            else:
                logger.exception("watch failed, trying again")
        failures += 1
        await anyio.sleep(pause(failures, first=0.5))


async def _watch_once(watch: Watch, place: Position) -> AsyncGenerator[JobEvent | Bookmark, None]:
    # No task group and no cancel scope is open around a yield: another task may end the generator.
    async with shared_hub(watch.key) as shared:
        with shared.ticks.at_most(watch.interval), shared.hub.follow(watch.wanted, place.copy()) as ends:
            while True:
                try:
                    item = await ends.receive()
                except anyio.EndOfStream:
                    raise HubClosed("the hub has closed") from None
                if isinstance(item, Bookmark):
                    place.advance(item.moment, item.floor)
                    yield item
                    continue
                event = await shared.hub.explain(item)
                if watch.workspace_ids:
                    event = await _with_workspace(shared, event)
                place.record(event)
                if not watch.workspace_ids or (event.workspace_id or "").lower() in watch.workspace_ids:
                    yield event


async def _with_workspace(shared: SharedHub, event: JobEvent) -> JobEvent:
    """Return the event with its workspace: only webhooks have it, so Airbyte is asked once for each connection."""
    connection_id = event.connection_id
    if event.workspace_id is not None or connection_id is None:
        return event
    known = _workspaces.setdefault(shared.airbyte.url, OrderedDict())
    failures = 0
    while connection_id not in known:
        try:
            known[connection_id] = await _workspace_of(shared.airbyte, connection_id)
        except AirbyteError as exc:
            failures += 1
            logger.warning("workspace not known yet: connection=%s reason=%s", connection_id, exc)
            await anyio.sleep(pause(failures))
    workspace_id = known[connection_id]
    if len(known) > _MOST_WORKSPACES:
        known.popitem(last=False)
    return replace(event, workspace_id=workspace_id)


async def _workspace_of(airbyte: AirbyteClient, connection_id: str) -> str | None:
    try:
        workspace_id = (await airbyte.get_connection(connection_id)).get("workspaceId")
    except (NotFound, Forbidden, Unprocessable, ValueError) as exc:
        if isinstance(exc, AirbyteStatusError) and exc.type is None:
            # Not Airbyte's response: a proxy in front of it sends that while Airbyte restarts.
            raise
        logger.warning("connection ignored, Airbyte returns no workspace: connection=%s reason=%s", connection_id, exc)
        return None
    return workspace_id if isinstance(workspace_id, str) else None


_workspaces: dict[str, OrderedDict[str, str | None]] = {}
"""By the Airbyte's URL, then by connection: a connection never changes its workspace."""

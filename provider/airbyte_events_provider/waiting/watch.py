"""Following the completions of connections' jobs with a shared hub."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events.errors import AirbyteError, HubClosed, SettingsError
from airbyte_events.events import EventFilter, JobEvent
from airbyte_events.hub.position import Bookmark, Position
from airbyte_events.jobs import JobSystem
from airbyte_events_provider.config import poll_interval
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A filter of completed jobs.

    :param key: the shared hub.
    :param wanted: which completions.
    :param workspace_ids: only connections in these Airbyte workspaces (UUIDs, lower case); empty: all.
    :param poll_interval: seconds between polls without a listener; None: as Airflow's configuration says.
    :param connection_names: only connections with these names, in addition to ``wanted``; empty: any.
    :param names_workspace_id: the workspace of the connections with these names; None: any.
    """

    key: HubKey
    wanted: EventFilter
    workspace_ids: frozenset[str] = frozenset()
    poll_interval: float | None = None
    connection_names: frozenset[str] = frozenset()
    names_workspace_id: str | None = None

    async def resolve(self, airbyte: JobSystem) -> EventFilter:
        """Return the filter with the ids of the named connections.

        :raises UnknownConnection: if there is no such connection, or several.
        """
        names = sorted(self.connection_names)
        if not names:
            return self.wanted
        ids = [await airbyte.find_connection(name, self.names_workspace_id) for name in names]
        logger.info("Airbyte connections found by name: names=%s connections=%s", names, ids)
        return replace(self.wanted, connection_ids=self.wanted.connection_ids.union(ids))

    @property
    def interval(self) -> float:
        return poll_interval() if self.poll_interval is None else self.poll_interval


async def follow(
    watch: Watch, position: Position, *, forever: bool = True
) -> AsyncGenerator[JobEvent | Bookmark, None]:
    """Yield each matching completion once, and bookmarks. When the hub closes, continue with another one.

    :param position: where to begin; it advances as completions are yielded.
    :param forever: whether to log every failure, and resume.
    :raises SettingsError: unless ``forever``, if the Airflow connection of the Airbyte is missing or wrong.
    """
    failures = 0
    while True:
        try:
            async with aclosing(_follow_once(watch, position)) as items:
                async for item in items:
                    failures = 0
                    yield item
        except HubClosed as exc:
            logger.debug("watching by another hub: reason=%s", exc)
        except Exception as exc:
            # Without its watch, a DAG would silently never run again.
            if not forever:
                raise
            if isinstance(exc, (SettingsError, AirbyteError)):
                logger.error("watch failed, retrying: %s", exc)
            else:
                logger.exception("watch failed, retrying")
        failures += 1
        await anyio.sleep(pause(failures, first=0.5))


async def _follow_once(watch: Watch, position: Position) -> AsyncGenerator[JobEvent | Bookmark, None]:
    # No task group and no cancel scope is open around a yield: another task may end the generator.
    async with shared_hub(watch.key) as shared:
        wanted = await watch.resolve(shared.airbyte)
        with shared.ticks.at_most(watch.interval), shared.hub.follow(wanted, position.copy()) as completions:
            while True:
                try:
                    item = await completions.receive()
                except anyio.EndOfStream:
                    raise HubClosed("the hub has closed") from None
                if isinstance(item, Bookmark):
                    position.advance(item.moment, item.floor)
                    yield item
                    continue
                event = await shared.hub.explain(item)
                if watch.workspace_ids and event.workspace_id is None and event.connection_id is not None:
                    # Only webhooks report it.
                    workspace_id = await _find_workspace(shared.airbyte, event.connection_id)
                    event = replace(event, workspace_id=workspace_id)
                position.record(event)
                if not watch.workspace_ids or (event.workspace_id or "").lower() in watch.workspace_ids:
                    yield event


async def _find_workspace(airbyte: JobSystem, connection_id: str) -> str | None:
    """Return the workspace of an Airbyte connection, once Airbyte responds."""
    failures = 0
    while True:
        try:
            return await airbyte.workspace_of(connection_id)
        except AirbyteError as exc:
            failures += 1
            logger.warning("workspace not known yet: connection=%s reason=%s", connection_id, exc)
        await anyio.sleep(pause(failures))

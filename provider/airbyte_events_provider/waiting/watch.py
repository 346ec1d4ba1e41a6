"""Being told of the ends of connections' jobs, by the hub that all triggers of a triggerer share."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace

import anyio
from airflow.providers.common.compat.sdk import conf

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
from airbyte_events.events import JobEvent, JobStatus, parse_status
from airbyte_events.hub.subscription import Mark, Place, Wanted
from airbyte_events_provider.config import SECTION
from airbyte_events_provider.waiting.shared_hub import HubKey, SharedHub, shared_hub

logger = logging.getLogger(__name__)

_MOST_WORKSPACES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What somebody wants to be told of.

    :param key: by which hub.
    :param wanted: which ends.
    :param workspace_ids: only of connections in these Airbyte workspaces (UUIDs, lower case); empty for all.
    :param poll_interval: seconds between looks while no listener tells; by default as Airflow's configuration says.
    """

    key: HubKey
    wanted: Wanted
    workspace_ids: frozenset[str] = frozenset()
    poll_interval: float | None = None

    @property
    def interval(self) -> float:
        shared = conf.getfloat(SECTION, "poll_interval", fallback=10.0)
        return shared if self.poll_interval is None else self.poll_interval


def several(values: str | Iterable[str] | None) -> list[str]:
    """One value, some or none, as a list in order, each once."""
    return sorted({values} if isinstance(values, str) else set(values or ()))


def terminal_status(name: str) -> JobStatus:
    """:raises ValueError: if no job ends with it."""
    status = parse_status(name)
    if not status.terminal:
        raise ValueError(f"no job ends as {name!r}: write succeeded, failed or cancelled")
    return status


async def watch_on(watch: Watch, place: Place) -> AsyncGenerator[JobEvent | Mark, None]:
    """Each end that is wanted, once, and now and then how far all were told.

    It never ends, and no trouble ends it: there is a log line, and it begins anew where it was.

    :param place: where to begin; it moves on as ends are told.
    """
    failures = 0
    while True:
        try:
            async with aclosing(watch_once(watch, place)) as items:
                async for item in items:
                    failures = 0
                    yield item
        except HubClosed as exc:
            logger.debug("watching Airbyte goes on with another hub: %s", exc)
        except SettingsError as exc:
            logger.error("Airbyte can't be watched, trying again: %s", exc)
        except Exception:
            # A watch that ends is a DAG that silently never runs again.
            logger.exception("watching Airbyte failed, beginning anew")
        failures += 1
        await anyio.sleep(pause(failures, first=0.5))


async def watch_once(watch: Watch, place: Place) -> AsyncGenerator[JobEvent | Mark, None]:
    """The same as long as one hub lasts.

    :raises SettingsError: if the Airflow connection of the Airbyte is missing or wrong.
    :raises HubClosed: when the hub ends.
    """
    # No task group and no cancel scope is open around a yield: the generator may be ended by another task.
    async with shared_hub(watch.key) as shared:
        with shared.ticks.wanting(watch.interval), shared.hub.follow(watch.wanted, place.copy()) as ends:
            while True:
                try:
                    item = await ends.receive()
                except anyio.EndOfStream:
                    raise HubClosed("the hub has ended") from None
                if isinstance(item, Mark):
                    place.complete(item.moment, item.floor)
                    yield item
                    continue
                event = await shared.hub.explain(item)
                if watch.workspace_ids:
                    event = await _located(shared, event)
                place.tell(event)
                if not watch.workspace_ids or (event.workspace_id or "").lower() in watch.workspace_ids:
                    yield event


async def _located(shared: SharedHub, event: JobEvent) -> JobEvent:
    """The end with its workspace, which only webhooks tell: otherwise the connection is asked for, once for all."""
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
            logger.warning("the workspace of connection %s is not known yet: %s", connection_id, exc)
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
            # Not Airbyte's word: a proxy in front of it says so while it restarts.
            raise
        logger.warning("connection %s is counted to no workspace, as Airbyte does not tell: %s", connection_id, exc)
        return None
    return workspace_id if isinstance(workspace_id, str) else None


_workspaces: dict[str, OrderedDict[str, str | None]] = {}
"""By the Airbyte's URL, then by connection: a connection never changes its workspace."""

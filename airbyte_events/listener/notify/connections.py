"""The names of connections and workspaces, from the API: a webhook's names are not confirmed, and polls have none."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

import anyio

from airbyte_events._utils.json_values import text
from airbyte_events._utils.token_bucket import TokenBucket
from airbyte_events.errors import AirbyteError
from airbyte_events.jobs import DescribesConnections, JobSystem

logger = logging.getLogger(__name__)

T = TypeVar("T")

_REMEMBERED = 10_000
_REMEMBERED_SECONDS = 3600.0
_FAILURE_SECONDS = 60.0
_BURST, _PER_SECOND = 30, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What filters and messages need to know of a connection. None is unknown."""

    name: str | None = None
    workspace_id: str | None = None
    workspace: str | None = None


UNKNOWN = Connection()


class Connections:
    """The connections of an instance, each requested when it is needed and remembered for an hour.

    At most 30 requests in a burst and 30 a minute are sent.
    """

    def __init__(self, system: JobSystem) -> None:
        self._system = system if isinstance(system, DescribesConnections) else None
        self._known: OrderedDict[str, tuple[float, Connection]] = OrderedDict()
        self._workspaces: OrderedDict[str, tuple[float, str | None]] = OrderedDict()
        self._failed = False
        self._allowance = TokenBucket(rate=_PER_SECOND, burst=_BURST)

    async def find(self, connection_id: str | None, *, wait: bool) -> Connection:
        """Return a connection; :data:`UNKNOWN` if it can't be read.

        :param wait: whether to wait until a request may be sent.
        """
        if connection_id is None or self._system is None:
            return UNKNOWN
        known = self._known.get(connection_id)
        if known is not None and anyio.current_time() < known[0]:
            return known[1]
        try:
            if not await self._may_request(wait=wait):
                return UNKNOWN if known is None else known[1]
            fields = await self._system.get_connection(connection_id)
            workspace_id = text(fields.get("workspaceId"))
            workspace = None if workspace_id is None else await self._workspace(workspace_id, wait=wait)
        except (AirbyteError, ValueError) as exc:
            # Once, as the reason may be that the credentials can't read connections.
            level = logging.DEBUG if self._failed else logging.WARNING
            logger.log(level, "could not read a connection's name: connection=%s error=%s", connection_id, exc)
            self._failed = True
            before = UNKNOWN if known is None else known[1]
            _remember(self._known, connection_id, before, for_seconds=_FAILURE_SECONDS)
            return before
        self._failed = False
        found = Connection(name=text(fields.get("name")), workspace_id=workspace_id, workspace=workspace)
        _remember(self._known, connection_id, found)
        return found

    async def _workspace(self, workspace_id: str, *, wait: bool) -> str | None:
        assert self._system is not None  # noqa: S101
        known = self._workspaces.get(workspace_id)
        if known is not None and anyio.current_time() < known[0]:
            return known[1]
        if not await self._may_request(wait=wait):
            return None
        name = text((await self._system.get_workspace(workspace_id)).get("name"))
        _remember(self._workspaces, workspace_id, name)
        return name

    async def _may_request(self, *, wait: bool) -> bool:
        while not self._allowance.take():
            if not wait:
                return False
            await self._allowance.wait()
        return True


def _remember(
    cache: OrderedDict[str, tuple[float, T]], key: str, value: T, *, for_seconds: float = _REMEMBERED_SECONDS
) -> None:
    cache[key] = (anyio.current_time() + for_seconds, value)
    cache.move_to_end(key)
    while len(cache) > _REMEMBERED:
        cache.popitem(last=False)

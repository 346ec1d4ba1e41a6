"""What connections are called, and their workspaces: requested when they are needed, and remembered."""

from __future__ import annotations

import logging
import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from airbyte_events._utils import json_values
from airbyte_events._utils.token_bucket import TokenBucket
from airbyte_events.airbyte.circuit_breaker import transient
from airbyte_events.airbyte.notifications import LONGEST_NAME
from airbyte_events.airbyte.session import Session
from airbyte_events.errors import AirbyteError, Forbidden, NotFound, Unprocessable
from airbyte_events.jobs import Connection

logger = logging.getLogger(__name__)

REMEMBERED = 10_000
"""Connections and workspaces."""

KEPT_SECONDS = 24 * 3600.0
"""A connection can be renamed."""

NEEDED_SECONDS = 3600.0
"""The greatest age of what is needed."""

PAUSE_SECONDS = 300.0
"""How long nothing is requested again after it could not be read."""

RESPONSE_SECONDS = 2.0
BURST, PER_SECOND = 50, 1.0
"""The limit of requests: beyond it, names are left out."""

_CONCURRENT = 4
_LARGEST = 4 * 1024 * 1024
_ID = re.compile(r"[0-9A-Za-z_-]+")


@dataclass(slots=True)
class _Entry:
    """A connection or workspace, as it was read last.

    :param patient: the last request was retried.
    :param placed: Airbyte has said which workspace it has, or that this client may not know.
    """

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    known: Connection = field(default_factory=Connection)
    read_at: float = -math.inf
    failed_at: float = -math.inf
    patient: bool = False
    placed: bool = False

    def serves(self, needed: bool) -> bool:
        now = anyio.current_time()
        if now < self.read_at + (NEEDED_SECONDS if needed else KEPT_SECONDS):
            return True
        return now < self.failed_at + PAUSE_SECONDS and (self.patient or not needed)


class ConnectionCache:
    """The connections and workspaces of one Airbyte, by id."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._bucket = TokenBucket(rate=PER_SECOND, burst=BURST)
        self._places = anyio.Semaphore(_CONCURRENT)
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._refused = False

    async def find(self, connection_id: str, *, needed: bool = False, workspace: bool = False) -> Connection:
        """Return a connection as far as it is known; see :class:`~airbyte_events.jobs.DescribesConnections`."""
        found = await self._find("connections", connection_id, needed)
        if not workspace or found.workspace_id is None:
            return found
        named = await self._find("workspaces", found.workspace_id, needed)
        return replace(found, workspace=named.name)

    async def workspace_of(self, connection_id: str) -> str | None:
        """Return a connection's workspace, which never changes; see :class:`~airbyte_events.jobs.JobSystem`."""
        if _ID.fullmatch(connection_id) is None:
            return None
        path = f"/connections/{connection_id}"
        entry = self._entry(path)
        async with entry.lock:
            if entry.known.workspace_id is None and not entry.placed:
                try:
                    _store(entry, await self._read(path, "/connections/{id}", needed=True))
                except (NotFound, Forbidden, Unprocessable) as exc:
                    if exc.type is None:
                        # Not Airbyte's response, but that of a proxy while Airbyte restarts.
                        raise
                    logger.warning("no workspace of a connection: path=%s error=%s", path, exc)
                entry.placed = True
        return entry.known.workspace_id

    async def _find(self, kind: str, id: str, needed: bool) -> Connection:
        if _ID.fullmatch(id) is None:
            return Connection()
        path = f"/{kind}/{id}"
        entry = self._entry(path)
        # Callers share a request.
        async with entry.lock:
            if not entry.serves(needed):
                await self._update(entry, kind, path, needed)
        return entry.known

    def _entry(self, path: str) -> _Entry:
        entry = self._entries.setdefault(path, _Entry())
        self._entries.move_to_end(path)
        if len(self._entries) > REMEMBERED:
            self._entries.popitem(last=False)
        return entry

    async def _update(self, entry: _Entry, kind: str, path: str, needed: bool) -> None:
        if not needed and self._session.backing_off:
            return
        while not self._bucket.take():
            if not needed:
                return
            await self._bucket.wait()
        async with self._places:
            # Also if this is cancelled.
            entry.failed_at, entry.patient = anyio.current_time(), needed
            try:
                fields = await self._read(path, f"/{kind}/{{id}}", needed)
            except AirbyteError as exc:
                # Once, as the reason may be that the credentials can't read connections.
                level = logging.INFO if self._refused or transient(exc) else logging.WARNING
                self._refused |= level == logging.WARNING
                logger.log(level, "could not read a name: path=%s error=%s", path, exc)
                return
        if _store(entry, fields):
            self._refused = False

    async def _read(self, path: str, route: str, needed: bool) -> dict[str, Any]:
        if needed:
            return (await self._session.read(self._session.request("GET", path, route))).object()
        request = self._session.request("GET", path, route, timeout=RESPONSE_SECONDS, largest=_LARGEST)
        return (await self._session.read_aside(request)).object()


def _store(entry: _Entry, fields: Mapping[str, Any]) -> bool:
    """Store what Airbyte returned; return whether that is anything."""
    name, workspace_id = (json_values.text(fields.get(key), LONGEST_NAME) for key in ("name", "workspaceId"))
    if name is None and workspace_id is None:
        return False
    entry.known, entry.read_at = Connection(name=name, workspace_id=workspace_id), anyio.current_time()
    return True

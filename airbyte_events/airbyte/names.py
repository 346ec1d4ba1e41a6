"""The names of connections, which jobs of the public API lack: requested once, and remembered."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field

import anyio

from airbyte_events._utils import json_values
from airbyte_events._utils.priority_limiter import PriorityLimiter
from airbyte_events._utils.token_bucket import TokenBucket
from airbyte_events.airbyte.notifications import LONGEST_WORD
from airbyte_events.airbyte.session import Session
from airbyte_events.errors import AirbyteError

logger = logging.getLogger(__name__)

REMEMBERED = 10_000
"""Connections."""

KEPT_SECONDS = 24 * 3600.0
"""A connection can be renamed."""

PAUSE_SECONDS = 300.0
"""How long a connection without a name, or after a failed request, is not requested again."""

RESPONSE_SECONDS = 2.0
BURST, PER_SECOND = 50, 1.0
"""The limit of requests: beyond it, names are left out."""

_CONCURRENT = 4
_LARGEST = 4 * 1024 * 1024


@dataclass(slots=True, kw_only=True)
class _Entry:
    done: anyio.Event = field(default_factory=anyio.Event)
    name: str | None = None
    valid_until: float = 0.0


class Names:
    """The names of one Airbyte's connections.

    :param session: of its public API.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._bucket = TokenBucket(rate=PER_SECOND, burst=BURST)
        self._places = PriorityLimiter(_CONCURRENT)
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    async def find(self, connection_id: str) -> str | None:
        """Return the name of a connection; None if it can't be learnt now. Callers share a request. Raises nothing."""
        entry = self._entries.get(connection_id)
        if entry is not None and (not entry.done.is_set() or anyio.current_time() < entry.valid_until):
            await entry.done.wait()
            return entry.name
        entry = self._entries[connection_id] = _Entry(name=None if entry is None else entry.name)
        self._entries.move_to_end(connection_id)
        if len(self._entries) > REMEMBERED:
            self._entries.popitem(last=False)
        kept = PAUSE_SECONDS
        try:
            async with self._places.place(0):
                if self._session.backing_off or not self._bucket.take():
                    kept = 0.0
                elif name := await self._request(connection_id):
                    entry.name, kept = name, KEPT_SECONDS
        finally:
            entry.valid_until = anyio.current_time() + kept
            entry.done.set()
        return entry.name

    async def _request(self, connection_id: str) -> str | None:
        request = self._session.request(
            "GET",
            f"/connections/{connection_id}",
            "/connections/{id}",
            timeout=RESPONSE_SECONDS,
            largest=_LARGEST,
        )
        try:
            # Also for the token, if a new one is needed.
            with anyio.move_on_after(RESPONSE_SECONDS):
                fields = (await self._session.read_aside(request)).object()
                return json_values.text(fields.get("name"), LONGEST_WORD)
        except AirbyteError as exc:
            logger.info("could not read a connection's name: connection=%s error=%s", connection_id, exc)
        return None

"""The workspaces of Airbyte connections."""

from __future__ import annotations

import logging
from collections import OrderedDict

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events.errors import AirbyteError, AirbyteStatusError, Forbidden, NotFound, Unprocessable
from airbyte_events.jobs import JobSystem

logger = logging.getLogger(__name__)

_LIMIT = 10_000
_known: dict[str, OrderedDict[str, str | None]] = {}
"""By the Airbyte's URL, then by connection, whose workspace never changes."""


async def find_workspace(airbyte: JobSystem, connection_id: str) -> str | None:
    """Return the workspace of an Airbyte connection, from a cache or once Airbyte responds; None if it has none."""
    known = _known.setdefault(airbyte.url, OrderedDict())
    failures = 0
    while connection_id not in known:
        try:
            known[connection_id] = await airbyte.workspace_of(connection_id)
        except (AirbyteError, ValueError) as exc:
            # Without a type it is not Airbyte's response, but that of a proxy while Airbyte restarts.
            proxied = isinstance(exc, AirbyteStatusError) and exc.type is None
            if isinstance(exc, (NotFound, Forbidden, Unprocessable, ValueError)) and not proxied:
                known[connection_id] = None
                message = "connection ignored, Airbyte returns no workspace: connection=%s reason=%s"
                logger.warning(message, connection_id, exc)
                break
            failures += 1
            logger.warning("workspace not known yet: connection=%s reason=%s", connection_id, exc)
            await anyio.sleep(pause(failures))
    workspace_id = known[connection_id]
    if len(known) > _LIMIT:
        known.popitem(last=False)
    return workspace_id

"""Finding the id of a connection by its name."""

from __future__ import annotations

import difflib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread

from airbyte_events._utils import json_values
from airbyte_events._utils.printable import shown
from airbyte_events.errors import UnknownConnection

logger = logging.getLogger(__name__)

KEPT_SECONDS = 60.0
"""How long one list of connections serves all callers: a connection that is renamed keeps its old name so long."""

MOST_CANDIDATES = 10
"""The names, or the connections of one name, that an error lists."""

_RECENT_SECONDS = 5.0
_MOST_LISTS = 16
_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A connection that has a name.

    :param place: where it is, for people.
    """

    connection_id: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    read_at: float
    by_name: dict[str, list[Named]]


class ConnectionSearch:
    """A search among the connections that a client can read.

    :param list_connections: returns the connections of a workspace, or all, in Airbyte's own fields.
    """

    def __init__(self, list_connections: Callable[[str | None], Awaitable[list[dict[str, Any]]]]) -> None:
        self._list = list_connections
        self._lists: OrderedDict[str | None, _Names] = OrderedDict()
        self._lock = anyio.Lock()

    async def find(self, name: str, workspace_id: str | None = None) -> str:
        """Return the id of the connection with this name.

        A name that is missing in a list of more than a few seconds ago is searched in a new one.
        """
        workspace_id = workspace_id.lower() if workspace_id else None
        async with self._lock:
            names, now = self._lists.get(workspace_id), anyio.current_time()
            kept = KEPT_SECONDS if names is not None and name in names.by_name else _RECENT_SECONDS
            if names is None or now > names.read_at + kept:
                names = self._lists[workspace_id] = await self._read(workspace_id)
                self._lists.move_to_end(workspace_id)
                if len(self._lists) > _MOST_LISTS:
                    self._lists.popitem(last=False)
        where = f" in workspace {workspace_id}" if workspace_id else ""
        return await only(
            names.by_name,
            name,
            owner="Airbyte has",
            where=where,
            several="write the id of one, or its workspace's id",
            nothing="it lists no connection: may the client read the workspace?",
        )

    async def _read(self, workspace_id: str | None) -> _Names:
        read_at = anyio.current_time()
        by_name: dict[str, list[Named]] = {}
        for fields in await self._list(workspace_id):
            id_, name = json_values.text(fields.get("connectionId")), fields.get("name")
            # Deleted connections are deprecated; lists leave them out by default.
            if id_ is not None and isinstance(name, str) and fields.get("status") != "deprecated":
                workspace = json_values.text(fields.get("workspaceId")) or "unknown"
                named = Named(connection_id=id_, place=f"workspace {workspace}")
                by_name.setdefault(name, []).append(named)
        logger.debug("connections listed by name: names=%d workspace=%s", len(by_name), workspace_id)
        return _Names(read_at=read_at, by_name=by_name)


async def only(
    by_name: Mapping[str, Sequence[Named]], name: str, *, owner: str, where: str = "", several: str, nothing: str
) -> str:
    """Return the id of the only connection with this name.

    :param owner: the subject and verb of an error, such as ``Airbyte has``.
    :param several: the remedy if several connections have the name.
    :param nothing: the remedy if there is no name at all.
    :raises UnknownConnection: if there is none, or several have the name; the message lists candidates.
    """
    found = by_name.get(name, ())
    if len(found) == 1:
        return found[0].connection_id
    if found:
        each = [f"{one.connection_id} ({one.place})" for one in found[:MOST_CANDIDATES]]
        raise UnknownConnection(
            f"{owner} {len(found)} connections named {_shown(name)}{where}: {several}: {_listed(each, len(found))}"
        )
    # In a thread: to compare thousands of names takes longer than an event loop may be blocked.
    candidates = await anyio.to_thread.run_sync(_candidates, name, list(by_name)) if by_name else nothing
    raise UnknownConnection(f"{owner} no connection named {_shown(name)}{where}: {candidates}")


def _candidates(name: str, names: Sequence[str]) -> str:
    """Return the existing names, close matches first."""
    folded = {each.casefold(): each for each in reversed(names)}
    close = [folded[each] for each in difflib.get_close_matches(name.casefold(), folded, n=5)]
    others = sorted(set(names).difference(close))
    shown_names = [_shown(each) for each in (*close, *others)[:MOST_CANDIDATES]]
    return f"{'the closest' if close else 'there'} are {_listed(shown_names, len(names))}"


def _listed(each: Sequence[str], count: int) -> str:
    more = f" and {count - len(each)} more" if count > len(each) else ""
    return f"{', '.join(each)}{more}"


def _shown(name: str) -> str:
    return repr(shown(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"))

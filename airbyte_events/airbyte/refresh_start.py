"""Starting a refresh by Airbyte's internal API: the public API starts none.

``POST /connections/refresh`` stores which streams to refresh, and then starts a job unless the connection has an active
one (``StreamRefreshesHandler``). In that case its response has no job, and the connection's next sync becomes the
refresh: so it is never sent while a job is active.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from airbyte_events._utils import json_values
from airbyte_events._utils.printable import shown
from airbyte_events.airbyte.refresh_detection import REFRESH
from airbyte_events.airbyte.session import Session
from airbyte_events.airbyte.transport import ApiResponse
from airbyte_events.airbyte.url import internal_url
from airbyte_events.errors import (
    AirbyteProtocolError,
    AirbyteStatusError,
    Conflict,
    Forbidden,
    NotFound,
    UnknownStream,
    Unsupported,
)
from airbyte_events.events import parse_status
from airbyte_events.jobs import Job, RefreshMode

ROUTE = "/connections/refresh"
_MODES = {RefreshMode.MERGE: "Merge", RefreshMode.TRUNCATE: "Truncate"}
_MOST_NAMED = 10
_ABSENT = frozenset({405, 501})


async def start_refresh(
    session: Session, connection_id: str, mode: RefreshMode, streams: Sequence[Mapping[str, str]], timeout: float
) -> Job:
    """Start a refresh of a connection that has no active job. The request is sent once.

    :param streams: from :func:`find_streams`; empty: all.
    :param timeout: seconds.
    :raises Unsupported: if this Airbyte does not have the call, or not for this client.
    :raises Conflict: if a job is active, or the connection inactive: nothing was started.
    """
    body: dict[str, Any] = {"connectionId": connection_id, "refreshMode": _MODES[mode]}
    if streams:
        body["streams"] = list(streams)
    request = session.request("POST", ROUTE, url=internal_url(session.url) + ROUTE, json=body, timeout=timeout)
    try:
        response = await session.write_once(request)
    except (Forbidden, NotFound) as exc:
        raise _unsupported(exc) from exc
    except AirbyteStatusError as exc:
        if exc.status_code in _ABSENT or (exc.page and exc.status_code < 500):
            raise _unsupported(exc) from exc
        raise
    except AirbyteProtocolError as exc:
        if exc.redirect:
            raise _unsupported(exc) from exc
        raise
    if response.page is not None:
        raise _unsupported(f"{request}: the response is {response.page}")
    return _job(response, connection_id)


def _unsupported(reason: object) -> Unsupported:
    return Unsupported(
        f"this Airbyte starts no refresh for this client, and nothing was started ({reason}). Refreshes need Airbyte "
        "0.63.8 or newer, its internal API, and the permission to run the connection. Start the refresh in Airbyte and "
        "wait for it by AirbyteSyncSensor(job_type='refresh'); or clear the connection and sync it again"
    )


def _job(response: ApiResponse, connection_id: str) -> Job:
    answer = response.object()
    if answer.get("job") is None:
        raise Conflict(
            409,
            f"{response.request}: Airbyte started no refresh of connection {connection_id}; if a job of it runs, the "
            "connection's next sync becomes the refresh",
            type="state-conflict",
        )
    job = json_values.mapping(answer["job"])
    job_id, created_at = json_values.job_id(job.get("id")), json_values.seconds(job.get("createdAt"))
    if job_id is None:
        raise AirbyteProtocolError(f"{response.request}: the response has a job without a usable id")
    return Job(
        job_id=job_id,
        status=parse_status(job.get("status")),
        job_type=REFRESH,
        connection_id=connection_id,
        started_at=None if created_at is None else datetime.fromtimestamp(created_at, UTC),
    )


def find_streams(connection: Mapping[str, Any], wanted: Sequence[str]) -> list[dict[str, str]]:
    """Return the streams in the internal API's fields.

    :param connection: the response of ``GET /connections/{id}``.
    :param wanted: see :class:`~airbyte_events.jobs.Refresh`.
    :raises UnknownStream: if the connection has no such stream, or several.
    """
    known = list(_streams(connection))
    return [_find_stream(known, name) for name in dict.fromkeys(wanted)]


def _find_stream(known: Sequence[dict[str, str]], wanted: str) -> dict[str, str]:
    found = [each for each in known if each["streamName"] == wanted] or [
        each for each in known if _full(each) == wanted
    ]
    if len(found) == 1:
        return found[0]
    names = sorted(map(_full, found or known))
    listed = ", ".join(repr(shown(each[:100])) for each in names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    number = f"{len(found)} streams" if found else "no stream"
    raise UnknownStream(f"the connection has {number} named {shown(wanted[:100])!r}: {listed or 'it has none'}{more}")


def _streams(connection: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    listed = json_values.mapping(connection.get("configurations")).get("streams")
    for stream in map(json_values.mapping, listed if isinstance(listed, list) else ()):
        name, namespace = json_values.text(stream.get("name")), json_values.text(stream.get("namespace"))
        if name is not None:
            yield {"streamName": name, **({} if namespace is None else {"streamNamespace": namespace})}


def _full(stream: Mapping[str, str]) -> str:
    namespace = stream.get("streamNamespace")
    return stream["streamName"] if namespace is None else f"{namespace}.{stream['streamName']}"

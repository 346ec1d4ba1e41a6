"""The bodies of Airbyte's notifications, current and old, and those that its *Test* button sends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte.notification_kinds import TEST_TAG, NotificationKind
from airbyte_events.simulator.models import Connection, Job, Workspace
from airbyte_events.simulator.responses import java_instant

_TEST_PAGE = "https://airbyte.com/"


def job_ended(
    job: Job, workspace: Workspace, base: str, *, success: bool | None = None, tag: str | None = None
) -> dict[str, Any]:
    """Return the body for a job that succeeded or failed.

    :param base: the URL of Airbyte's pages.
    :param success: the reported result; None: the true one.
    :param tag: before the headline, as ``[tag] ``.
    """
    data = _job_data(job, workspace, base)
    return _sync_body(data if success is None else {**data, "success": success}, tag)


def sync_test(*, success: bool = True) -> dict[str, Any]:
    """Return the *Test* button's body for successes, or failures: job 10 of a workspace that does not exist."""
    return _sync_body(_test_data(success), TEST_TAG)


def _sync_body(data: dict[str, Any], tag: str | None) -> dict[str, Any]:
    kind = NotificationKind.SUCCESS if data["success"] else NotificationKind.FAILURE
    return _body(f"{_sync_text(data)}\n", kind, data, tag)


def _sync_text(data: dict[str, Any]) -> str:
    return f"Your connection {_route_text(data)} {'succeeded' if data['success'] else 'failed'}"


def _queued(job: Job, workspace: Workspace, base: str, tag: str | None) -> dict[str, Any]:
    """Return a failure's ``data``, whose ``finishedAt`` is the job's last update."""
    data = {**_job_data(job, workspace, base), "success": False, **_error()}
    body = _body(f"Your sync for connection {_route_text(data)} is queued.\n", NotificationKind.QUEUED, data, tag)
    body["blocks"][-1] = _section(f"*Job ID:* {job.id}")
    return body


def _text_only(job: Job, workspace: Workspace, base: str, tag: str | None) -> dict[str, Any]:
    data = _job_data(job, workspace, base)
    return {"text": f"{_sync_text(data)}\n{data['connection']['url']}"}


def _disabled(kind: NotificationKind, connection: Connection, base: str) -> dict[str, Any]:
    url = _connection_url(connection, base)
    text = f"{_disabled_text(kind, connection.name)}: {url}"
    return {"text": text, "blocks": [_section(f"{kind.titles[0]}: <{url}|{connection.name}>"), _section(text)]}


def _disabled_test(kind: NotificationKind) -> dict[str, Any]:
    body = _body(_disabled_text(kind, "Connection"), kind, _test_data(success=False), TEST_TAG)
    del body["data"]
    return body


def _disabled_text(kind: NotificationKind, name: str) -> str:
    warned = kind is NotificationKind.DISABLED_WARNING
    what = "is scheduled to be automatically disabled" if warned else "was automatically disabled"
    return f"Your connection {name} {what} because it failed repeatedly"


def _schema_changed(connection: Connection, base: str) -> dict[str, Any]:
    url = _connection_url(connection, base)
    text = f"The schema of the source of {connection.name} has changed: {url}"
    title = f"{NotificationKind.SCHEMA_CHANGE.titles[0]} for '<{url}|{connection.name}>'."
    return {"text": text, "blocks": [_section(title), _section(text)]}


def _schema_test() -> dict[str, Any]:
    text = f"[{TEST_TAG}] {NotificationKind.SCHEMA_CHANGE.titles[1]}<{_TEST_PAGE}|Some Connection>' has changed."
    return {"text": text, "blocks": [_section(text), _section(" • Streams (+1/-1/~0)")]}


def _hello_world() -> dict[str, Any]:
    return {"text": "Hello World! This is a test from Airbyte to try slack notification settings for queued syncs."}


@dataclass(frozen=True, slots=True)
class Sample:
    """A body that Airbyte sends.

    :param kind: what it announces; for ``text-only``, if the job succeeded.
    :param about: its subject; None if that does not exist.
    :param compose: makes the body from its subject, the workspace, the URL of Airbyte's pages and a tag.
    :param title: for people.
    """

    kind: NotificationKind
    about: Literal["job", "connection"] | None
    compose: Callable[[Any, Workspace, str, str | None], dict[str, Any]]
    title: str


def _of_job(
    kind: NotificationKind, compose: Callable[[Job, Workspace, str, str | None], dict[str, Any]], title: str = ""
) -> Sample:
    return Sample(kind, "job", compose, title or kind.meaning)


def _of_connection(kind: NotificationKind, compose: Callable[[Connection, str], dict[str, Any]]) -> Sample:
    return Sample(kind, "connection", lambda connection, _, base, __: compose(connection, base), kind.meaning)


def _test(of: str, compose: Callable[[], dict[str, Any]]) -> Sample:
    kind = NotificationKind.TEST
    return Sample(kind, None, lambda *_: compose(), f"{kind.meaning}, {of}")


_K = NotificationKind
SAMPLES = {
    "succeeded": _of_job(_K.SUCCESS, lambda job, of, base, tag: job_ended(job, of, base, success=True, tag=tag)),
    "failed": _of_job(_K.FAILURE, lambda job, of, base, tag: job_ended(job, of, base, success=False, tag=tag)),
    "queued": _of_job(_K.QUEUED, _queued),
    "text-only": _of_job(_K.SUCCESS, _text_only, f"{_K.SUCCESS.meaning}, before Airbyte 0.59"),
    "test": _test(_K.SUCCESS.meaning, sync_test),
    "test-failure": _test(_K.FAILURE.meaning, lambda: sync_test(success=False)),
    "test-disabled": _test(_K.DISABLED.meaning, lambda: _disabled_test(_K.DISABLED)),
    "test-disabled-warning": _test(_K.DISABLED_WARNING.meaning, lambda: _disabled_test(_K.DISABLED_WARNING)),
    "test-schema-change": _test(_K.SCHEMA_CHANGE.meaning, _schema_test),
    "hello": _test("any other kind", _hello_world),
    "disabled": _of_connection(_K.DISABLED, lambda connection, base: _disabled(_K.DISABLED, connection, base)),
    "disabled-warning": _of_connection(
        _K.DISABLED_WARNING, lambda connection, base: _disabled(_K.DISABLED_WARNING, connection, base)
    ),
    "schema-change": _of_connection(_K.SCHEMA_CHANGE, _schema_changed),
}
"""All of them, by their names in the control API."""


def _test_data(success: bool) -> dict[str, Any]:
    now = utcnow()
    names = ("Workspace", "Connection", "Source", "Destination")
    reason = ("This is a test: here the reason will stand when a sync fails.", "transient_error", "source")
    return {
        **{name.lower(): {"id": str(uuid4()), "name": name, "url": _TEST_PAGE} for name in names},
        "jobId": 10,
        **_figures(now - timedelta(hours=1), now, 159_341_141, 1000 if success else 10),
        "success": success,
        **(_error() if success else _error(*reason)),
    }


def _body(text: str, kind: NotificationKind, data: dict[str, Any], tag: str | None) -> dict[str, Any]:
    connection, source, destination = data["connection"], data["source"], data["destination"]
    fields = [
        f"*Source:* <{source['url']}|{source['name']}>",
        f"*Destination:* <{destination['url']}|{destination['name']}>",
        f"*Duration:* {data['durationFormatted']}",
    ]
    blocks = [
        _section(f"{f'[{tag}] ' if tag else ''}{kind.titles[0]}: <{connection['url']}|{connection['name']}>"),
        {"type": "section", "fields": [{"type": "mrkdwn", "text": field} for field in fields]},
    ]
    if data["errorMessage"]:
        blocks.append(_section(f"*Failure reason:*\n\n{data['errorMessage']}"))
        text += f"{data['errorMessage']}\n"
    blocks.append(
        _section(
            f"*Sync Summary:*\n{data['recordsEmitted']} record(s) extracted / "
            f"{data['recordsCommitted']} record(s) loaded\n"
            f"{data['bytesEmittedFormatted']} extracted / {data['bytesCommittedFormatted']} loaded"
        )
    )
    return {"text": text, "blocks": blocks, "data": data}


def _job_data(job: Job, workspace: Workspace, base: str) -> dict[str, Any]:
    connection = job.connection
    page = f"{base}/workspaces/{workspace.id}"
    error = job.error
    return {
        "workspace": {"id": workspace.id, "name": workspace.name, "url": page},
        "connection": {"id": connection.id, "name": connection.name, "url": _connection_url(connection, base)},
        "source": _actor("Simulated source", page, "source", connection.source_id),
        "destination": _actor("Simulated destination", page, "destination", connection.destination_id),
        "jobId": job.id,
        # A launch that failed left no statistics, which are then summed up to 0.
        **_figures(job.created_at, job.updated_at, job.bytes or 0, job.records or 0),
        "success": job.status == "succeeded",
        **(_error() if error is None else _error(error.message, error.type, error.origin)),
    }


def _figures(start: datetime, end: datetime, bytes: int, records: int) -> dict[str, Any]:
    seconds = int(end.timestamp()) - int(start.timestamp())
    return {
        "startedAt": java_instant(start),
        "finishedAt": java_instant(end),
        "bytesEmitted": bytes,
        "bytesCommitted": bytes,
        "recordsEmitted": records,
        "recordsCommitted": records,
        "recordsFilteredOut": 0,
        "bytesFilteredOut": 0,
        "bytesEmittedFormatted": _volume(bytes),
        "bytesCommittedFormatted": _volume(bytes),
        "durationInSeconds": seconds,
        "durationFormatted": _duration(seconds),
    }


def _error(message: str | None = None, type: str | None = None, origin: str | None = None) -> dict[str, str | None]:
    return {"errorMessage": message, "errorType": type, "errorOrigin": origin}


def _actor(name: str, page: str, kind: str, id: str) -> dict[str, str]:
    return {"id": id, "name": name, "url": f"{page}/{kind}/{id}"}


def _connection_url(connection: Connection, base: str) -> str:
    return f"{base}/workspaces/{connection.workspace_id}/connections/{connection.id}"


def _route_text(data: dict[str, Any]) -> str:
    return f"{data['connection']['name']} from {data['source']['name']} to {data['destination']['name']}"


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _volume(bytes: int) -> str:
    amount = float(bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1024:
            return f"{bytes} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TB"


def _duration(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} hours {minutes} min"
    return f"{minutes} min {rest} sec" if minutes else f"{rest} sec"

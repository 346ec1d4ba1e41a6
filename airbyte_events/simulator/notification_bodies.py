"""The bodies of Airbyte's notifications, current and old."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airbyte_events._utils.times import utcnow
from airbyte_events.simulator.responses import java_instant

if TYPE_CHECKING:
    from datetime import datetime

    from airbyte_events.simulator.control_models import NewNotification
    from airbyte_events.simulator.state import Connection, Job, Workspace

TEST_TAG = "THIS IS A TEST NOTIFICATION"
_TEST_PAGE = "https://airbyte.com/"
_DISABLED, _WARNED = "Connection disabled", "Warning - repeated connection failures"
_DONE = {True: ("Sync completed", "succeeded"), False: ("Sync failure occurred", "failed")}


def compose(
    what: NewNotification, job: Job | None, connection: Connection | None, workspace: Workspace, base: str
) -> dict[str, Any]:
    """The body that somebody wants sent, about the job or connection they named.

    :param base: the URL of Airbyte's pages.
    """
    if what.body is not None:
        return what.body
    if job is not None and what.kind in ("succeeded", "failed"):
        return job_ended(job, workspace, base, success=what.kind == "succeeded", tag=what.tag)
    if job is not None and what.kind == "queued":
        return job_queued(job, workspace, base, tag=what.tag)
    if job is not None and what.kind == "text-only":
        return text_only(job, workspace, base)
    if connection is not None and what.kind == "schema-change":
        return schema_changed(connection, base)
    if connection is not None and what.kind in ("disabled", "disabled-warning"):
        return connection_disabled(connection, base, warning=what.kind == "disabled-warning")
    return TESTS[what.kind]()


def job_ended(
    job: Job, workspace: Workspace, base: str, *, success: bool | None = None, tag: str | None = None
) -> dict[str, Any]:
    """The body for a job that succeeded or failed.

    :param base: the URL of Airbyte's pages.
    :param success: what it says; None: what is true.
    :param tag: stands before the headline as ``[tag] ``.
    """
    data = _job_data(job, workspace, base)
    if success is not None:
        data["success"] = success
    title, verb = _DONE[data["success"]]
    return _body(f"Your connection {_route_text(data)} {verb}\n", title, data, tag)


def job_queued(job: Job, workspace: Workspace, base: str, *, tag: str | None = None) -> dict[str, Any]:
    """The body for a job that waits for capacity: a failure's ``data``, whose ``finishedAt`` is the last update."""
    data = {**_job_data(job, workspace, base), "success": False, **_no_error()}
    body = _body(f"Your sync for connection {_route_text(data)} is queued.\n", "Sync queued", data, tag)
    body["blocks"][-1] = _section(f"*Job ID:* {job.id}")
    return body


def sync_test(*, success: bool = True) -> dict[str, Any]:
    """What the *Test* button sends for syncs that succeed, or fail: job 10 of a workspace that does not exist."""
    data = _test_data(success)
    title, verb = _DONE[success]
    return _body(f"Your connection {_route_text(data)} {verb}\n", title, data, TEST_TAG)


def disabled_test(*, warning: bool = False) -> dict[str, Any]:
    """What the *Test* button sends for connections that are disabled, or about to be. No ``data``."""
    data = _test_data(False)
    title = _WARNED if warning else _DISABLED
    body = _body(_repeated("Connection", warning), title, data, TEST_TAG)
    del body["data"]
    return body


def schema_test() -> dict[str, Any]:
    """What the *Test* button sends for schema changes. No ``data``."""
    text = f"[{TEST_TAG}] The schema of '<{_TEST_PAGE}|Some Connection>' has changed."
    return {"text": text, "blocks": [_section(text), _section(" • Streams (+1/-1/~0)")]}


def hello_world() -> dict[str, Any]:
    """What the *Test* button sends for every other kind."""
    return {"text": "Hello World! This is a test from Airbyte to try slack notification settings for queued syncs."}


TESTS: dict[str, Callable[[], dict[str, Any]]] = {
    "test": sync_test,
    "test-failure": lambda: sync_test(success=False),
    "test-disabled": disabled_test,
    "test-disabled-warning": lambda: disabled_test(warning=True),
    "test-schema-change": schema_test,
    "hello": hello_world,
}
"""What the *Test* button of the settings page sends, by kind of notification on demand."""


def _test_data(success: bool) -> dict[str, Any]:
    now = utcnow()
    names = ("Workspace", "Connection", "Source", "Destination")
    return {
        **{name.lower(): {"id": str(uuid4()), "name": name, "url": _TEST_PAGE} for name in names},
        "jobId": 10,
        **_figures(now - timedelta(hours=1), now, 159_341_141, 1000 if success else 10),
        "success": success,
        **(
            _no_error()
            if success
            else {
                "errorMessage": "This is a test: here the reason will stand when a sync fails.",
                "errorType": "transient_error",
                "errorOrigin": "source",
            }
        ),
    }


def connection_disabled(connection: Connection, base: str, *, warning: bool = False) -> dict[str, Any]:
    """*Connection disabled* for failing too often, or the warning that it is about to be. No ``data``."""
    url = _connection_url(connection, base)
    title = _WARNED if warning else _DISABLED
    text = f"{_repeated(connection.name, warning)}: {url}"
    return {"text": text, "blocks": [_section(f"{title}: <{url}|{connection.name}>"), _section(text)]}


def _repeated(name: str, warning: bool) -> str:
    what = "is scheduled to be automatically disabled" if warning else "was automatically disabled"
    return f"Your connection {name} {what} because it failed repeatedly"


def schema_changed(connection: Connection, base: str) -> dict[str, Any]:
    """The source's schema has changed. No ``data``."""
    url = _connection_url(connection, base)
    text = f"The schema of the source of {connection.name} has changed: {url}"
    return {
        "text": text,
        "blocks": [_section(f"Airbyte detected schema changes for '<{url}|{connection.name}>'."), _section(text)],
    }


def text_only(job: Job, workspace: Workspace, base: str) -> dict[str, Any]:
    """The body of a platform before 0.59: nothing but text."""
    data = _job_data(job, workspace, base)
    verb = _DONE[job.status == "succeeded"][1]
    return {"text": f"Your connection {_route_text(data)} {verb}\n{data['connection']['url']}"}


def _body(text: str, title: str, data: dict[str, Any], tag: str | None) -> dict[str, Any]:
    connection, source, destination = data["connection"], data["source"], data["destination"]
    fields = [
        f"*Source:* <{source['url']}|{source['name']}>",
        f"*Destination:* <{destination['url']}|{destination['name']}>",
        f"*Duration:* {data['durationFormatted']}",
    ]
    blocks = [
        _section(f"{f'[{tag}] ' if tag else ''}{title}: <{connection['url']}|{connection['name']}>"),
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
        **(
            _no_error()
            if error is None
            else {"errorMessage": error.message, "errorType": error.type, "errorOrigin": error.origin}
        ),
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


def _no_error() -> dict[str, None]:
    return {"errorMessage": None, "errorType": None, "errorOrigin": None}


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

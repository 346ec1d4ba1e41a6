"""Airbyte's internal API, as far as this package and its users' alarms need it.

Shapes are those of the platform's ``config.yaml``; what a call leaves out and when is from its handlers
(``JobHistoryHandler``, ``StreamRefreshesHandler``, ``NotificationsHandler``, ``ConnectionsHandler``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from starlette.responses import JSONResponse, Response

from airbyte_events._utils.json_values import mapping, text, whole
from airbyte_events._utils.times import utcnow
from airbyte_events.simulator.api import Api, Given, json_object
from airbyte_events.simulator.listing import as_uuid
from airbyte_events.simulator.models import Attempt, Connection, Counts, Job, Release, sample_id
from airbyte_events.simulator.responses import Problem, bad_request
from airbyte_events.simulator.tokens import Tokens
from airbyte_events.simulator.webhooks import Delivery
from airbyte_events.simulator.world import World

CONFIG_TYPES = {"sync": "sync", "reset": "reset_connection", "refresh": "refresh"}
"""The internal API's names of job types."""

REFRESH_MODES = ("Merge", "Truncate")

TESTS = {
    "sync_success": "test",
    "sync_failure": "test-failure",
    "sync_disabled": "test-disabled",
    "sync_disabled_warning": "test-disabled-warning",
    "connection_update": "test-schema-change",
    "connection_update_action_required": "hello",
    "connection_sync_queued": "hello",
}
"""By the trigger of a test notification: the sample that is sent."""

_TIMELINE = {"sync": "SYNC", "reset": "CLEAR", "refresh": "REFRESH"}
_CHECKPOINT = 100
"""Records per commit of a running job."""


class InternalApi(Api):
    """The routes of the internal API.

    :param try_webhook: sends a sample to a URL, and waits for the response.
    """

    def __init__(
        self,
        world: World,
        tokens: Tokens,
        try_webhook: Callable[[str, str], Awaitable[Delivery]],
        *,
        admin: bool,
        release: Release,
    ) -> None:
        super().__init__(world, tokens, admin=admin, release=release)
        self._try_webhook = try_webhook
        calls: dict[str, tuple[Release, Callable[[dict[str, Any]], Any]]] = {
            "POST /jobs/get_without_logs": (Release(0, 50), self._job_info),
            "POST /jobs/list": (Release(0, 50), self._list_jobs),
            "POST /stream_statuses/list": (Release(0, 50), self._stream_statuses),
            "POST /notifications/try_webhook": (Release(0, 50, 25), self._test_notification),
            "POST /connections/sync_progress": (Release(0, 50, 38), self._sync_progress),
            "POST /connections/events/list": (Release(0, 63, 8), self._events),
            "POST /connections/refresh": (Release(0, 63, 8), self._refresh),
        }
        self.routes = {route: partial(_carry_out, call) for route, (_, call) in calls.items()}
        self.since = {route: since for route, (since, _) in calls.items()}

    def _failed(self, problem: Problem) -> Response:
        # The internal API's errors have no problem document but an id of the server's log.
        return JSONResponse({"errorId": str(uuid4())}, problem.status)

    def _job_info(self, given: dict[str, Any]) -> dict[str, Any]:
        job = self._world.jobs.get(whole(given.get("id")) or 0)
        if job is None:
            raise self._unknown("job")
        return {
            "job": {**_job(job), "streamAggregatedStats": list(_stream_stats(job))},
            "attempts": [{"attempt": attempt} for attempt in _attempts(job)],
        }

    def _list_jobs(self, given: dict[str, Any]) -> dict[str, Any]:
        connection, types = self._connection(given.get("configId")), given.get("configTypes")
        if not isinstance(types, list):
            raise bad_request("jobListRequestBody.configTypes: must not be null")
        jobs = [job for job in reversed(connection.jobs) if CONFIG_TYPES[job.type] in types]
        page = [{"job": _job(job), "attempts": _attempts(job)} for job in _page(given, jobs)]
        return {"jobs": page, "totalJobCount": len(jobs)}

    def _sync_progress(self, given: dict[str, Any]) -> dict[str, Any]:
        connection = self._connection(given.get("connectionId"))
        job = connection.current
        if job is None:
            return {"connectionId": connection.id, "streams": []}
        streams = [{**each, "configType": CONFIG_TYPES[job.type]} for each in _stream_stats(job)]
        return {
            "connectionId": connection.id,
            "jobId": job.id,
            "configType": CONFIG_TYPES[job.type],
            "syncStartedAt": _seconds(job.created_at),
            "streams": streams,
            **(_counts(job) if job.attempts else {}),
        }

    def _stream_statuses(self, given: dict[str, Any]) -> dict[str, Any]:
        workspace_id = as_uuid("workspaceId", given.get("workspaceId"))
        job = self._world.jobs.get(whole(given.get("jobId")) or 0)
        if job is None or job.connection.workspace_id != workspace_id:
            return {"streamStatuses": []}
        return {"streamStatuses": _page(given, list(_statuses(job)))}

    def _events(self, given: dict[str, Any]) -> dict[str, Any]:
        connection, wanted = self._connection(given.get("connectionId")), given.get("eventTypes")
        events = [event for job in reversed(connection.jobs) if (event := _timeline_event(job)) is not None]
        return {"events": _page(given, [each for each in events if wanted is None or each["eventType"] in wanted])}

    async def _test_notification(self, given: dict[str, Any]) -> dict[str, Any]:
        trigger = given.get("notificationTrigger")
        if trigger not in TESTS:
            raise bad_request(f"no notificationTrigger is called {str(trigger)[:80]!r}")
        url = text(mapping(given.get("slackConfiguration")).get("webhook"))
        if url is None:
            raise bad_request("slackConfiguration.webhook: must not be null")
        delivery = await self._try_webhook(TESTS[trigger], url)
        if delivery.status is not None and delivery.status < 300:
            return {"status": "succeeded"}
        return {"status": "failed", **({"message": delivery.error} if delivery.error else {})}

    def _refresh(self, given: dict[str, Any]) -> dict[str, Any]:
        connection, mode = self._connection(given.get("connectionId")), given.get("refreshMode")
        if mode not in REFRESH_MODES:
            raise bad_request(f"no refreshMode is called {str(mode)[:80]!r}: {', '.join(REFRESH_MODES)}")
        streams = given.get("streams") or []
        known = connection.stream_descriptors
        named = [
            {
                "name": each.get("streamName"),
                **({"namespace": each["streamNamespace"]} if "streamNamespace" in each else {}),
            }
            for each in map(mapping, streams if isinstance(streams, list) else [])
        ]
        if any(each not in known for each in named):
            raise bad_request("streams: not in the connection's catalog")
        # As in Airbyte: the streams are stored first, and while a job is active nothing is started. The connection's
        # next sync becomes the refresh.
        connection.to_refresh = named or known
        if connection.current is not None or not connection.active:
            return {}
        return {"job": _job(self._world.start_job(connection))}

    def _connection(self, id: object) -> Connection:
        connection = self._world.connections.get(as_uuid("connectionId", id))
        if connection is None:
            raise self._unknown("connection")
        return connection

    def _unknown(self, name: str) -> Problem:
        return Problem(404 if self._admin else 403, "resource-not-found", name)


def _carry_out(call: Callable[[dict[str, Any]], Any], given: Given) -> Any:
    return call(json_object(given.body))


def _page(given: dict[str, Any], things: list[Any]) -> list[Any]:
    pagination = mapping(given.get("pagination"))
    offset = whole(pagination.get("rowOffset")) or 0
    return things[offset : offset + (whole(pagination.get("pageSize"), least=1) or 100)]


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _job(job: Job) -> dict[str, Any]:
    data = {
        "id": job.id,
        "configType": CONFIG_TYPES[job.type],
        "configId": job.connection.id,
        "enabledStreams": job.connection.stream_descriptors,
        "createdAt": _seconds(job.created_at),
        "updatedAt": _seconds(job.updated_at),
        "status": job.status,
    }
    if job.attempts:
        data |= {"startedAt": _seconds(job.attempts[0].started_at), "aggregatedStats": _counts(job)}
    if job.refreshed is not None:
        data["refreshConfig"] = {"streamsToRefresh": job.refreshed}
    return data


def _attempts(job: Job) -> list[dict[str, Any]]:
    return [_attempt(job, number, attempt) for number, attempt in enumerate(job.attempts)]


def _attempt(job: Job, number: int, attempt: Attempt) -> dict[str, Any]:
    ended, error = attempt.ended_at, attempt.error
    last = number == len(job.attempts) - 1
    status = "running" if ended is None else "succeeded" if last and job.status == "succeeded" else "failed"
    script = job.script
    data: dict[str, Any] = {
        "id": number,
        "status": status,
        "createdAt": _seconds(attempt.started_at),
        "updatedAt": _seconds(ended or utcnow()),
        "totalStats": {"estimatedRecords": script.records or 0, "estimatedBytes": script.bytes or 0},
    }
    if ended is not None:
        data["endedAt"] = _seconds(ended)
    if last:
        data["totalStats"] |= _counts(job)
    if error is not None:
        reason: dict[str, Any] = {
            "failureOrigin": error.origin,
            "failureType": error.type,
            "externalMessage": error.message,
            "internalMessage": f"internal: {error.message}",
            "stacktrace": "java.lang.RuntimeException: simulated\n\tat io.airbyte.Simulated.run(Simulated.java:1)",
            "retryable": error.retryable,
            "timestamp": _seconds(ended or utcnow()) * 1000,
        }
        if error.stream is not None:
            namespace, _, name = error.stream.rpartition(".")
            reason["streamDescriptor"] = {"name": name, **({"namespace": namespace} if namespace else {})}
        failures = [{name: value for name, value in reason.items() if value is not None}]
        data["failureSummary"] = {"failures": failures, "partialSuccess": bool(job.records)}
    return data


def _counts(job: Job) -> dict[str, int]:
    """Return emitted and committed counts: a running job commits in steps."""
    return _figures(job.counts(utcnow()), running=not job.terminal)


def _figures(counts: Counts, *, running: bool) -> dict[str, int]:
    records, volume = counts.records or 0, counts.bytes or 0
    committed = records - records % _CHECKPOINT if running else records
    return {
        "recordsEmitted": records,
        "bytesEmitted": volume,
        "recordsCommitted": committed,
        "bytesCommitted": volume * committed // records if records else volume,
        "recordsRejected": 0,
    }


def _streams(job: Job) -> Iterator[tuple[dict[str, str], Counts, bool]]:
    """Return each stream with its counts so far, and whether it is complete: streams run one after another."""
    streams = job.refreshed or job.connection.stream_descriptors
    now = job.counts(utcnow())
    whole_job = now if job.terminal else Counts(job.script.records, job.script.bytes)
    left_records, left_bytes = now.records or 0, now.bytes or 0
    for stream in streams:
        records = min(left_records, -(-(whole_job.records or 0) // len(streams)))
        volume = min(left_bytes, -(-(whole_job.bytes or 0) // len(streams)))
        left_records, left_bytes = left_records - records, left_bytes - volume
        yield stream, Counts(records, volume), left_records > 0 or job.status == "succeeded"


def _stream_stats(job: Job) -> Iterator[dict[str, Any]]:
    for stream, counts, complete in _streams(job):
        named = {
            "streamName": stream["name"],
            **({"streamNamespace": stream["namespace"]} if "namespace" in stream else {}),
        }
        yield {**named, **_figures(counts, running=not complete and not job.terminal)}


def _statuses(job: Job) -> Iterator[dict[str, Any]]:
    began = False
    for stream, counts, complete in _streams(job) if job.attempts else ():
        if complete:
            state: dict[str, str] = {"runState": "COMPLETE"}
        elif job.terminal:
            state = {"runState": "INCOMPLETE", "incompleteRunCause": "CANCELED" if job.cancelled_by else "FAILED"}
        else:
            # The one that runs is the first that is not complete.
            state, began = {"runState": "PENDING" if began and not counts.records else "RUNNING"}, True
        yield {
            "id": str(uuid5(NAMESPACE_URL, f"airbyte-events:simulator:{job.id}:{stream['name']}")),
            "attemptNumber": len(job.attempts) - 1,
            "connectionId": job.connection.id,
            "workspaceId": job.connection.workspace_id,
            "jobId": job.id,
            "jobType": job.type.upper(),
            "streamName": stream["name"],
            "streamNamespace": stream.get("namespace"),
            "transitionedAt": _seconds(job.ended_at or job.attempts[-1].started_at) * 1000,
            **state,
        }


def _timeline_event(job: Job) -> dict[str, Any] | None:
    """Return the event of a job's end. A cancellation by Airbyte itself writes none."""
    if job.ended_at is None or job.cancelled_by == "airbyte":
        return None
    summary = {
        "jobId": job.id,
        "startTimeEpochSeconds": _seconds(job.created_at),
        "endTimeEpochSeconds": _seconds(job.updated_at),
        "bytesLoaded": job.bytes or 0,
        "recordsLoaded": job.records or 0,
        "attemptsCount": len(job.attempts),
        "jobType": CONFIG_TYPES[job.type].upper(),
        "statusType": job.status.upper(),
    }
    user = {"id": sample_id("user", 1), "name": "Simulated user", "email": "user@example.com", "isDeleted": False}
    return {
        "id": str(uuid5(NAMESPACE_URL, f"airbyte-events:simulator:event:{job.id}")),
        "connectionId": job.connection.id,
        "eventType": f"{_TIMELINE[job.type]}_{job.status.upper()}",
        "createdAt": _seconds(job.ended_at),
        "summary": summary,
        **({"user": user} if job.cancelled_by == "user" else {}),
    }

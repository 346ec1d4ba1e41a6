"""The JSON Schemas of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from airbyte_events._utils.json_values import LARGEST
from airbyte_events.airbyte.notification_kinds import NotificationKind
from airbyte_events.airbyte.submission import How
from airbyte_events.events import NAMED, WEBHOOK_FIELDS, JobStatus, Origin, Signal, SignalKind
from airbyte_events.events.signal import RECOVERED
from airbyte_events.listener.http.api import MAX_RECEIPT_SECONDS
from airbyte_events.listener.http.probes import Arrived
from airbyte_events.store.base import COMPLETION
from airbyte_events.store.records import DeliveryState, Outcome

Schema = dict[str, Any]

CURSOR_PATTERN = "^[0-9a-f]{1,32}-(0|[1-9][0-9]{0,17})$"


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def named(values: Iterable[Enum], *others: str) -> Schema:
    """Return the schema of an enumeration's values."""
    return {"type": "string", "enum": [*(each.value for each in values), *others]}


def _object(description: str, optional: Iterable[str] = (), **properties: Schema) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "description": description, "required": required, "properties": properties}


def _or_null(schema: Schema, **more: Any) -> Schema:
    schema = {**schema, **more}
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _map(description: str, values: Schema, **more: Any) -> Schema:
    return {"type": "object", "description": description, "additionalProperties": values, **more}


TEXT: Schema = {"type": "string"}
ID: Schema = {"type": "integer", "format": "int64", "minimum": 1, "maximum": LARGEST}
CURSOR: Schema = {
    "type": "string",
    "pattern": CURSOR_PATTERN,
    "description": "A position in the event log: `<epoch>-<sequence>`.",
    "examples": ["5f3a9c1e-42"],
}
_TIME: Schema = {"type": "string", "format": "date-time"}
_COUNT: Schema = {"type": "integer", "format": "int64", "minimum": 0, "maximum": LARGEST}
_SECONDS: Schema = {"type": "number", "minimum": 0}
_AGE: Schema = {**_SECONDS, "maximum": MAX_RECEIPT_SECONDS}
_STATUS = named(JobStatus)
_NEXT = _or_null({**TEXT, "pattern": "^[0-9]+$"}, description="The `before` of the next page; null on the last page.")

_AS_OF: Schema = {
    **_TIME,
    "description": "The last successful poll of the instance, by Airbyte's clock: all earlier changes are known. Null"
    " before the first poll.",
}

_IDENTIFIED = {"instance": TEXT, "job_id": ID, "connection_id": _or_null(TEXT), "started_at": _or_null(_TIME)}


def _envelope(description: str, type_: Schema, subject: str, data: str) -> Schema:
    return _object(
        f"{description}, as a CloudEvents 1.0 envelope.",
        specversion={"const": "1.0"},
        id=CURSOR,
        type=type_,
        source={**TEXT, "description": "The Airbyte instance's URL."},
        subject={"type": "string", "pattern": subject},
        time=_TIME,
        sequence={"type": "string", "pattern": "^[0-9]{18}$"},
        datacontenttype={"const": "application/json"},
        data=ref(data),
    )


SCHEMAS: dict[str, Schema] = {
    "Job": _object(
        "The state of a job. Unknown values are null; times are RFC 3339 in UTC.",
        ("attempts", "names", "url", "task_url", "receipts", "unconfirmed"),
        instance={**TEXT, "description": "The name of the Airbyte instance in the listener's settings."},
        job_id=ID,
        connection_id=_or_null(TEXT),
        workspace_id=_or_null(TEXT),
        job_type=_or_null(TEXT, description="`sync`, `reset`, `clear`, `refresh` or another type of Airbyte's."),
        status={**_STATUS, "description": "`succeeded`, `failed` and `cancelled` are terminal; all others are active."},
        previous_status=_or_null(_STATUS),
        started_at=_or_null(_TIME),
        finished_at=_or_null(_TIME),
        observed_at=_TIME,
        records=_or_null(_COUNT),
        bytes=_or_null(_COUNT),
        duration_seconds=_or_null(_SECONDS),
        origin={
            **named(Origin),
            "description": "What detected the state: `webhook`, `poll`, or `submit` for a read on demand. `unknown`: an"
            " origin of a newer version of the listener.",
        },
        error=_or_null(
            _object(
                "The reason of a failure, from a notification or Airbyte's internal API.",
                optional=["retryable", "stream"],
                message=_or_null(TEXT),
                type=_or_null(TEXT),
                origin=_or_null(TEXT),
                retryable={"type": "boolean", "description": "Whether a retry may succeed. Absent if it is not known."},
                stream={**TEXT, "description": "The stream that failed. Absent if it is not known."},
            )
        ),
        attempts={**_COUNT, "description": "How often Airbyte tried, of a failed job. Absent if it is not known."},
        names=_map("Names, from notifications or the API; absent if unknown.", TEXT, propertyNames={"enum": [*NAMED]}),
        url={**TEXT, "description": "The connection's page in Airbyte."},
        task_url={**TEXT, "description": "The page of a task that waits for the job. Absent if no watch had one."},
        receipts=array(
            _object(
                "A task that received the completion.",
                task_url=_or_null(TEXT),
                waiting_since={**_TIME, "description": "When the task began to wait."},
                received_at=_TIME,
            ),
            description="The tasks that received the completion and reported it. Absent if there are none.",
        ),
        unconfirmed=array(
            {"enum": [*WEBHOOK_FIELDS]},
            description="The fields that only a notification reported. Airbyte's API neither has nor contradicts them."
            " Absent if there are none.",
        ),
    ),
    "Event": _envelope(
        "A change of a job's state",
        {"type": "string", "enum": [f"io.airbyte.job.{status.value}" for status in JobStatus]},
        "^jobs/[0-9]+$",
        "Job",
    ),
    "EventPage": _object(
        "Events, oldest first, and the cursor to continue from. Signals only if requested.",
        events=array({"anyOf": [ref("Event"), ref("SignalEvent")]}),
        cursor=CURSOR,
    ),
    "Signal": _object(
        "What the listener concludes from the jobs of a connection. Unknown values are null; times are RFC 3339 in"
        " UTC.",
        ("names", "url"),
        instance=TEXT,
        connection_id=_or_null(TEXT),
        workspace_id=_or_null(TEXT),
        job_type=_or_null(TEXT),
        signal=named(SignalKind),
        state={"type": "string", "enum": ["raised", "resolved"]},
        job_id={**_or_null(ID), "description": "The job, of `stalled` and `slow`."},
        since=_or_null(_TIME, description="When the condition began."),
        message={**TEXT, "description": "For people."},
        observed_at={**_TIME, "description": "When it was raised or resolved."},
        records=_or_null(_COUNT, description="Of a stalled job, when it was raised."),
        bytes=_or_null(_COUNT, description="Of a stalled job, when it was raised."),
        names=_map("Names from notifications; absent if there were none.", TEXT, propertyNames={"enum": [*NAMED]}),
        url={**TEXT, "description": "The connection's page in Airbyte."},
    ),
    "SignalEvent": _envelope(
        "A signal that was raised or resolved",
        {
            "type": "string",
            "enum": [*(Signal(kind=kind, raised=True).type for kind in SignalKind), RECOVERED],
            "description": "Every resolved signal is a recovery; `data.signal` says which.",
        },
        "^(jobs/[0-9]+|connections/.*)$",
        "Signal",
    ),
    "SignalPage": _object("Signals, newest first.", signals=array(ref("Signal")), next=_NEXT),
    "Reset": _object(
        "The events behind the cursor are no longer stored. Read the states again, then continue from this cursor.",
        error={"const": "reset"},
        message=TEXT,
        cursor=CURSOR,
    ),
    "JobRef": _object("A job. Its id is unique within its instance only.", instance=TEXT, job_id=ID),
    "WatchedJob": _object(
        "A job. `connection_id` and `started_at` distinguish it from a job with the same id before a restore of"
        " Airbyte.",
        ("connection_id", "started_at", "task_url"),
        **_IDENTIFIED,
        task_url=_or_null(
            TEXT,
            description="The page of the task that waits: http or https, at most 2,000 characters. Any other value"
            " is ignored. The job keeps the first one.",
        ),
    ),
    "WatchAnswer": _object(
        "The states of the watched jobs. A job that is in neither list could not be read yet.",
        jobs=array(ref("Job")),
        unknown=array(ref("JobRef"), description="Jobs that Airbyte does not have."),
        cursor={**CURSOR, "description": "Later changes are in the feed behind this cursor."},
    ),
    "TaskReceipt": _object(
        "A task that has received a job's completion. Times are ages, as clocks differ.",
        ("connection_id", "started_at", "task_url"),
        **_IDENTIFIED,
        task_url=_or_null(TEXT, description="The task's page, as in a watch."),
        seconds_ago={**_AGE, "description": "The time since the task received it."},
        waited_seconds={**_AGE, "description": "How long it had waited by then."},
    ),
    "ReceiptAnswer": _object("The result of a report.", receipts={**_COUNT, "description": "Those that are stored."}),
    "JobPage": _object(
        "The latest states, newest first.",
        jobs=array(ref("Job")),
        next=_NEXT,
        as_of=_map("The `as_of` of each instance, by name.", _or_null(_AS_OF)),
    ),
    "JobDetail": _object(
        "A job's state, its history, and the notification of its completion.",
        job=ref("Job"),
        history=array(ref("Event"), description="The stored events, oldest first."),
        as_of=_or_null(_AS_OF),
        notification=_or_null(ref("Notification")),
    ),
    "Progress": _object(
        "The progress of an active job. Unknown values are null; times are RFC 3339 in UTC.",
        instance=TEXT,
        job_id=ID,
        connection_id=_or_null(TEXT),
        status=_STATUS,
        started_at=_or_null(_TIME),
        observed_at={**_TIME, "description": "When Airbyte reported this."},
        records=_or_null(_COUNT, description="Committed so far."),
        bytes=_or_null(_COUNT, description="Committed so far."),
        streams=_or_null(
            array(
                _object(
                    "A stream.",
                    name=TEXT,
                    namespace=_or_null(TEXT),
                    records=_or_null(_COUNT, description="Read from the source so far."),
                    bytes=_or_null(_COUNT, description="Read from the source so far."),
                ),
                description="From Airbyte's internal API, if it responds and streams were requested.",
            )
        ),
        unchanged_seconds={
            **_SECONDS,
            "description": "Seconds without a change of these values, by the responses so far; 0 unless it runs.",
        },
        streams_unchanged_seconds=_or_null(
            _SECONDS,
            description="For how long the streams have been the same, up to the last response with them; 0"
            " before the second one. Null: Airbyte does not report them.",
        ),
        usual=_or_null(
            _object(
                "The medians of the connection's last successes.",
                jobs={**_COUNT, "minimum": 1, "description": "The number of successes."},
                duration_seconds=_or_null(_SECONDS),
                records=_or_null(_COUNT),
                bytes=_or_null(_COUNT),
            )
        ),
    ),
    "ProgressList": _object("The progress of active jobs.", progress=array(ref("Progress"))),
    "Notification": _object(
        "A notification from Airbyte and its outcome.",
        id=ID,
        instance=TEXT,
        received_at=_TIME,
        kind=named(NotificationKind, "rejected", COMPLETION),
        job_id=_or_null(ID),
        outcome=named(Outcome),
        settled_at=_or_null(_TIME),
    ),
    "NotificationPage": _object("Notifications, newest first.", notifications=array(ref("Notification")), next=_NEXT),
    "Delivery": _object(
        "The delivery of a forwarded or outgoing notification to a target. Outgoing ones have the kind `completion`.",
        id=ID,
        notification=ref("Notification"),
        target=_object(
            "The target. `url` is shown without its path; it is null if the target is no longer in the settings.",
            name=TEXT,
            url=_or_null(TEXT),
        ),
        state={**named(DeliveryState), "description": "`dead`: given up."},
        attempts=_COUNT,
        due_at={**_TIME, "description": "The time of the next attempt, or of the last one."},
        fault=_or_null(TEXT, description="The error of the last attempt."),
    ),
    "DeliveryPage": _object("Deliveries, newest first.", deliveries=array(ref("Delivery")), next=_NEXT),
    "Retried": _object("The delivery's id.", delivery=ID),
    "Probe": _object(
        "A probe, and how it last arrived.",
        probe=TEXT,
        result=_or_null({**named(Arrived), "description": "Null before it has arrived."}),
        bytes={**_COUNT, "description": "Of the body."},
        notification=_or_null(ID, description="The notification's id if it was stored."),
    ),
    "Kept": _object("The notification's id.", event=ID),
    "Error": _object("An error.", ("message",), error=TEXT, message=TEXT),
    "Health": _object("The health of the process.", status={"const": "ok"}, version=TEXT),
    "Readiness": _object(
        "The readiness of all parts.",
        status={"type": "string", "enum": ["ready", "not ready"]},
        faults=_map("The faults, by part.", TEXT),
    ),
    "Status": _object(
        "The status of a listener. Values of an instance that another listener leads are null.",
        listener=_object(
            "This listener.",
            version=TEXT,
            name={**TEXT, "description": "Unique for the process: host, process id and a random part."},
            started_at=_TIME,
            subscriptions={**_COUNT, "description": "Open streams and waiting long polls."},
            faults=_map("The faults, by part.", TEXT),
            webhooks=_map("Webhooks answered since the start, by HTTP status. 404 and 429 are refusals.", _COUNT),
        ),
        leases=array(
            _object(
                "A lease. One listener at a time holds it.",
                name={**TEXT, "description": "`sources/INSTANCE` or `retention`."},
                holder={**TEXT, "description": "The `name` of the listener that holds it."},
            )
        ),
        store=_object(
            "The contents of the store.",
            first={**_COUNT, "description": "The sequence number of the oldest event, 0 for none."},
            head={**_COUNT, "description": "The sequence number of the newest event."},
            events=_COUNT,
            jobs=_COUNT,
            notifications=_COUNT,
            pending={**_COUNT, "description": "Notifications that are not confirmed yet."},
            due={**_COUNT, "description": "Deliveries to be sent."},
            dead={**_COUNT, "description": "Deliveries given up."},
            bytes=_COUNT,
        ),
        instances=array(
            _object(
                "An Airbyte instance.",
                name=TEXT,
                url=TEXT,
                here_since=_or_null(_TIME, description="The time since which this listener leads the instance."),
                push_proven=_or_null({"type": "boolean"}),
                watched={**_COUNT, "description": "Jobs watched by any listener."},
                looked_at=_or_null(_TIME, description="The last poll, by Airbyte's clock."),
                seconds_between_looks=_or_null(_SECONDS),
                failed_looks=_or_null(_COUNT, description="Failed polls in a row."),
                backoff_seconds={
                    **_SECONDS,
                    "description": "The time until the next request to Airbyte after errors; 0 if it responds.",
                },
                counters=_map("Counters of this process.", _COUNT),
            )
        ),
    ),
    "ActedOn": _object(
        "The job that an action concerns.",
        instance=TEXT,
        job_id=ID,
        how=named((How.STARTED, How.FOUND, How.ATTACHED), "cancelled"),
    ),
    "NotificationBody": _object(
        "A notification's body.",
        id=ID,
        body={**TEXT, "description": "As Airbyte sent it, secrets masked; indented if it is JSON."},
        truncated={"type": "boolean", "description": "Whether the end is cut off."},
    ),
    "Hello": _object(
        "The `data` of a stream's first frame.", epoch=TEXT, head=CURSOR, heartbeat={**_SECONDS, "exclusiveMinimum": 0}
    ),
    "Bookmark": _object(
        "The `data` of a frame that only advances the cursor, its `id`. At least one frame arrives per heartbeat."
    ),
    "ResetFrame": _object("The `data` of a frame after lost events: read the states again.", reason=TEXT),
    "Goaway": _object(
        "The `data` of a stream's last frame: reconnect.",
        reason={"type": "string", "enum": ["drain", "age", "store", "token"]},
    ),
}
"""By name."""

"""The shapes of what the listener takes and gives, as JSON Schemas of its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from airbyte_events._utils.json_values import LARGEST
from airbyte_events.airbyte.notification_kinds import NotificationKind
from airbyte_events.events import NAMED, TOLD_BY_WEBHOOKS, JobStatus, Origin
from airbyte_events.store.records import DeliveryState, Outcome

Schema = dict[str, Any]

CURSOR_PATTERN = "^[0-9a-f]{1,32}-(0|[1-9][0-9]{0,17})$"


def ref(name: str) -> Schema:
    """A reference to one of :data:`SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def named(values: Iterable[Enum], *others: str) -> Schema:
    """One of the values of an enumeration."""
    return {"type": "string", "enum": [*(each.value for each in values), *others]}


def _object(description: str, optional: Iterable[str] = (), **properties: Schema) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "description": description, "required": required, "properties": properties}


def _or_null(schema: Schema) -> Schema:
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


TEXT: Schema = {"type": "string"}
ID: Schema = {"type": "integer", "format": "int64", "minimum": 1, "maximum": LARGEST}
CURSOR: Schema = {
    "type": "string",
    "pattern": CURSOR_PATTERN,
    "description": "A place in the event log: `<epoch>-<sequence>`.",
    "examples": ["5f3a9c1e-42"],
}
_TIME: Schema = {"type": "string", "format": "date-time"}
_COUNT: Schema = {"type": "integer", "format": "int64", "minimum": 0, "maximum": LARGEST}
_SECONDS: Schema = {"type": "number", "minimum": 0}
_STATUS = named(JobStatus)
_NEXT: Schema = {
    "type": ["string", "null"],
    "pattern": "^[0-9]+$",
    "description": "The next page's `before`; null on the last page.",
}

_JOB = _object(
    "A job's state, or a change of it. Unknown is null; times are RFC 3339 in UTC.",
    ("names", "url", "unconfirmed"),
    instance={**TEXT, "description": "The Airbyte instance, by the name that the listener's settings give it."},
    job_id=ID,
    connection_id=_or_null(TEXT),
    workspace_id=_or_null(TEXT),
    job_type=_or_null({**TEXT, "description": "`sync`, `reset`, `clear`, `refresh`, or what else Airbyte calls it."}),
    status={**_STATUS, "description": "`succeeded`, `failed` and `cancelled` are terminal, all others active."},
    previous_status=_or_null(_STATUS),
    started_at=_or_null(_TIME),
    finished_at=_or_null(_TIME),
    observed_at=_TIME,
    records=_or_null(_COUNT),
    bytes=_or_null(_COUNT),
    duration_seconds=_or_null(_SECONDS),
    origin={
        **named(Origin),
        "description": "How it was learnt: a webhook came, the instance was looked at, or somebody asked. `unknown`: in"
        " a way that a newer version of the listener named.",
    },
    error=_or_null(
        _object(
            "Why the job failed, as far as a notification told.",
            message=_or_null(TEXT),
            type=_or_null(TEXT),
            origin=_or_null(TEXT),
        )
    ),
    names={
        "type": "object",
        "description": "Where a notification brought them.",
        "propertyNames": {"enum": [*NAMED]},
        "additionalProperties": TEXT,
    },
    url={**TEXT, "description": "The connection's page in Airbyte."},
    unconfirmed={
        "type": "array",
        "items": {"enum": [*TOLD_BY_WEBHOOKS]},
        "description": "The fields that a notification alone brought: Airbyte's API does not contradict them, nor does"
        " it say them. Absent where there are none.",
    },
)

_EVENT = _object(
    "A change of a job's state: a CloudEvents 1.0 envelope.",
    specversion={"const": "1.0"},
    id=CURSOR,
    type={"type": "string", "enum": [f"io.airbyte.job.{status.value}" for status in JobStatus]},
    source={**TEXT, "description": "The Airbyte instance's URL."},
    subject={"type": "string", "pattern": "^jobs/[0-9]+$"},
    time=_TIME,
    sequence={"type": "string", "pattern": "^[0-9]{18}$"},
    datacontenttype={"const": "application/json"},
    data=ref("Job"),
)

_JOB_REF = _object("A job's name: ids are unique within one instance only.", instance=TEXT, job_id=ID)

_WATCHED = _object(
    "A job, and what tells it from another one that had its number: Airbyte is asked again where that is known.",
    optional=["connection_id", "started_at"],
    instance=TEXT,
    job_id=ID,
    connection_id=_or_null(TEXT),
    started_at=_or_null(_TIME),
)

_NOTIFICATION = _object(
    "What came from Airbyte, and what became of it.",
    id=ID,
    instance=TEXT,
    received_at=_TIME,
    kind=named(NotificationKind, "rejected"),
    job_id=_or_null(ID),
    outcome=named(Outcome),
    settled_at=_or_null(_TIME),
)

SCHEMAS: dict[str, Schema] = {
    "Job": _JOB,
    "Event": _EVENT,
    "EventPage": _object("Events, the oldest first, and where to go on.", events=array(ref("Event")), cursor=CURSOR),
    "Reset": _object(
        "What followed the cursor is not known any more: read the states again, then go on from this one.",
        error={"const": "reset"},
        message=TEXT,
        cursor=CURSOR,
    ),
    "JobRef": _JOB_REF,
    "WatchedJob": _WATCHED,
    "WatchAnswer": _object(
        "The states of jobs that are watched now. A job that is in neither list could not be asked for yet.",
        jobs=array(ref("Job")),
        unknown=array(ref("JobRef"), description="Jobs that Airbyte does not have."),
        cursor={**CURSOR, "description": "What happens from now on is on the feed behind this."},
    ),
    "JobPage": _object("Latest states, the newest first.", jobs=array(ref("Job")), next=_NEXT),
    "JobDetail": _object(
        "A job's state, how it came to it, and the notification of its end.",
        job=ref("Job"),
        history=array(ref("Event"), description="The events that are kept, the oldest first."),
        notification=_or_null(ref("Notification")),
    ),
    "Notification": _NOTIFICATION,
    "NotificationPage": _object("The inbox, the newest first.", notifications=array(ref("Notification")), next=_NEXT),
    "Delivery": _object(
        "The forwarding of a notification to another address.",
        id=ID,
        notification=ref("Notification"),
        target=_object(
            "Where to: `url` is without its path, and null for a target that is not in the settings any more.",
            name=TEXT,
            url=_or_null(TEXT),
        ),
        state={**named(DeliveryState), "description": "`dead` is what was given up."},
        attempts=_COUNT,
        due_at={**_TIME, "description": "When it is tried, or was tried last."},
        fault=_or_null({**TEXT, "description": "Why the last attempt failed."}),
    ),
    "DeliveryPage": _object("Deliveries, the newest first.", deliveries=array(ref("Delivery")), next=_NEXT),
    "Retried": _object("The delivery's id.", delivery=ID),
    "Kept": _object("The notification's id.", event=ID),
    "Error": _object("What is wrong.", ("message",), error=TEXT, message=TEXT),
    "Health": _object("The process runs.", status={"const": "ok"}, version=TEXT),
    "Readiness": _object(
        "Whether all parts work.",
        status={"type": "string", "enum": ["ready", "not ready"]},
        faults={"type": "object", "description": "What is not ready, by part.", "additionalProperties": TEXT},
    ),
    "Status": _object(
        "How a listener does. What another one does for an instance is null here.",
        listener=_object(
            "This one.",
            version=TEXT,
            name={**TEXT, "description": "Of the process: its host, its number and some chance."},
            started_at=_TIME,
            subscriptions={**_COUNT, "description": "Who follows events: streams, and pages that wait."},
            faults={"type": "object", "description": "What is not ready, by part.", "additionalProperties": TEXT},
            webhooks={
                "type": "object",
                "description": "Webhooks answered since the start, by the HTTP status; 404 and 429 are refusals.",
                "additionalProperties": _COUNT,
            },
        ),
        leases=array(
            _object(
                "What one listener at a time does for all that share the store.",
                name={**TEXT, "description": "`sources/INSTANCE` or `retention`."},
                holder={**TEXT, "description": "The `name` of the listener that does it."},
            )
        ),
        store=_object(
            "How large the store is.",
            first={**_COUNT, "description": "The oldest event's sequence, 0 for none."},
            head={**_COUNT, "description": "The newest event's."},
            events=_COUNT,
            jobs=_COUNT,
            notifications=_COUNT,
            pending={**_COUNT, "description": "Notifications that wait to be confirmed."},
            due={**_COUNT, "description": "Deliveries to be sent."},
            dead={**_COUNT, "description": "Deliveries that were given up."},
            bytes=_COUNT,
        ),
        instances=array(
            _object(
                "An Airbyte.",
                name=TEXT,
                url=TEXT,
                here_since=_or_null({**_TIME, "description": "Since when this listener confirms and polls for it."}),
                push_proven=_or_null({"type": "boolean"}),
                watched={**_COUNT, "description": "Jobs that somebody waits for, at whichever listener."},
                looked_at=_or_null({**_TIME, "description": "The last look, by Airbyte's clock."}),
                seconds_between_looks=_or_null(_SECONDS),
                failed_looks=_or_null({**_COUNT, "description": "In a row."}),
                backoff_seconds={**_SECONDS, "description": "Until Airbyte may be asked again; 0 if it answers."},
                counters={"type": "object", "description": "Of this process.", "additionalProperties": _COUNT},
            )
        ),
    ),
    "Hello": _object(
        "`data` of a stream's first frame.", epoch=TEXT, head=CURSOR, heartbeat={**_SECONDS, "exclusiveMinimum": 0}
    ),
    "Bookmark": _object("`data` of a frame that only moves the cursor, its `id`: at least one every heartbeat."),
    "ResetFrame": _object("`data` of a frame that says: read the states again, what was between is lost.", reason=TEXT),
    "Goaway": _object(
        "`data` of a stream's last frame: connect again.",
        reason={"type": "string", "enum": ["drain", "age", "store", "token"]},
    ),
}
"""By name."""

"""The OpenAPI document of the listener's HTTP API, served as ``/openapi.json``.

Tests hold it to the routes and to the responses of a listener.
"""

from __future__ import annotations

from typing import Any

from airbyte_events import __version__
from airbyte_events.events import MAX_RECEIPTS, JobStatus
from airbyte_events.listener.http.api import MAX_AGE, MAX_PROGRESS
from airbyte_events.listener.http.params import MAX_BODY, MAX_LIST
from airbyte_events.listener.http.receiver import MAX_BODY as MAX_NOTIFICATION
from airbyte_events.listener.http.schemas import CURSOR, CURSOR_PATTERN, ID, SCHEMAS, Schema, array, named, ref
from airbyte_events.store.records import DeliveryState


def _json(description: str, schema: str | Schema, **headers: Schema) -> dict[str, Any]:
    content = {"application/json": {"schema": ref(schema) if isinstance(schema, str) else schema}}
    given = {"headers": {name.replace("_", "-"): {"schema": of} for name, of in headers.items()}} if headers else {}
    return {"description": description, "content": content, **given}


_WAIT: Schema = {"type": "string", "pattern": "^[0-9]+$", "description": "Seconds."}
_BUSY = "The event store is not available, or too many requests are in progress."

_REFUSALS = {
    400: ("BadRequest", _json("A parameter, the body or the HTTP request is wrong. The message names it.", "Error")),
    401: ("Unauthorized", _json("The token is missing or wrong.", "Error", WWW_Authenticate={"const": "Bearer"})),
    403: ("Forbidden", _json("The token is none of the operator tokens.", "Error")),
    404: ("NotFound", _json("The path or the object does not exist.", "Error")),
    409: ("Conflict", _json("The object is in a state that does not allow this.", "Error")),
    413: ("TooLarge", _json("The body is too large.", "Error")),
    429: ("TooMany", _json("This address sent too many requests without a valid token.", "Error", Retry_After=_WAIT)),
    502: ("AirbyteFailed", _json("Airbyte refused, or did not respond. The message has the reason.", "Error")),
    503: ("Unavailable", _json(_BUSY, "Error", Retry_After=_WAIT)),
}


def _parameter(name: str, place: str, description: str, schema: Schema, *, required: bool = False) -> dict[str, Any]:
    needed = {"required": True} if required or place == "path" else {}
    return {"name": name, "in": place, **needed, "description": description, "schema": schema}


def _get(
    id_: str, summary: str, responses: dict[str, dict[str, Any]], *refusals: int, method: str = "get", **more: Any
) -> dict[str, Any]:
    """:param refusals: the statuses of :data:`_REFUSALS` that it can respond with."""
    refused = {str(code): {"$ref": f"#/components/responses/{_REFUSALS[code][0]}"} for code in refusals}
    responses = dict(sorted((responses | refused).items()))
    return {method: {"operationId": id_, "summary": summary, **more, "responses": responses}}


def _post(*about: Any, **more: Any) -> dict[str, Any]:
    return _get(*about, method="post", **more)


def _body(description: str, schema: Schema, **more: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, **more}}
    return {"required": True, "description": description, "content": content}


def _list_body(name: str, of: str, example: dict[str, Any]) -> dict[str, Any]:
    properties = {name: array(ref(of), maxItems=MAX_LIST)}
    schema: Schema = {"type": "object", "required": [name], "properties": properties}
    return _body(f"At most {MAX_BODY} bytes.", schema, example={name: [example]})


_NAME: Schema = {"type": "string", "pattern": r"^[^,\u0000]+$"}
_SEGMENT: Schema = {"type": "string", "pattern": r"^[^/\u0000]+$"}
_AFTER: Schema = {**CURSOR, "pattern": CURSOR_PATTERN[:-1] + "$|^$"}
_POSITION: Schema = {"type": "integer", "minimum": 0, "maximum": 2**53}
_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
_SECONDS: Schema = {"type": "number", "minimum": 0, "maximum": 60, "default": 0}
_V1 = (400, 401, 429, 503)

_FILTERS = [
    _parameter("instance", "query", "Only these Airbyte instances, comma-separated.", array(_NAME, minItems=1)),
    _parameter("connection_id", "query", "Only these Airbyte connections.", array(_NAME, minItems=1)),
    _parameter("job_id", "query", "Only these jobs.", array(ID, minItems=1)),
    _parameter("status", "query", "Only these job statuses.", array(named(JobStatus), minItems=1)),
    _parameter("terminal", "query", "Only terminal (`true`) or only active (`false`) statuses.", {"type": "boolean"}),
]
_SIGNALS = "Also signals, which match by instance and connection only. In a stream they are frames `signal`."
_PAGING = [
    _parameter("limit", "query", "The largest number of items on a page. A page also ends at about 1 MiB.", _LIMIT),
    _parameter("before", "query", "The `next` of the previous page.", _POSITION),
]

_STREAM_EXAMPLE = """\
event: hello
id: 5f3a9c1e-41
data: {"epoch": "5f3a9c1e", "head": "5f3a9c1e-41", "heartbeat": 15.0}

event: job
id: 5f3a9c1e-42
data: {"specversion": "1.0", "id": "5f3a9c1e-42", "type": "io.airbyte.job.succeeded", …}

event: bookmark
id: 5f3a9c1e-42
data: {}

event: goaway
data: {"reason": "age"}

"""

_STREAM_FRAMES = (
    "Server-sent events. The `data` of each is a JSON object: `hello` (Hello), `job` (Event), `signal` (SignalEvent,"
    " only if requested), `bookmark` (Bookmark), `reset` (ResetFrame) or `goaway` (Goaway)."
)

_EVENTS = _get(
    "followEvents",
    "Follow job events, as a stream or by long polling",
    {
        "200": {
            "description": "A page of events, or a stream.",
            "content": {
                "application/json": {"schema": ref("EventPage")},
                "text/event-stream": {
                    "schema": {"type": "string", "description": _STREAM_FRAMES},
                    "example": _STREAM_EXAMPLE,
                },
            },
        },
        "410": _json("Only pages: the events behind the cursor are no longer stored.", "Reset"),
    },
    *_V1,
    description="With `Accept: text/event-stream`, the response is a stream that starts behind the given cursor, or"
    " with the next event. Otherwise it is one page of events; with `wait`, an empty page is held back until an event"
    " arrives or the time is over.",
    parameters=[
        *_FILTERS,
        _parameter("signals", "query", _SIGNALS, {"type": "boolean", "default": False}),
        _parameter(
            "after", "query", "The cursor of the last event that was read. Without it, only new events.", _AFTER
        ),
        _parameter("wait", "query", "Only pages: the time to wait for an event, in seconds.", _SECONDS),
        _parameter(
            "limit", "query", "Only pages: the largest number of events. A page also ends at about 1 MiB.", _LIMIT
        ),
        _parameter(
            "Last-Event-ID", "header", "Overrides `after`. Browsers send it when they reconnect a stream.", _AFTER
        ),
    ],
)

_WATCH = _post(
    "watchJobs",
    "Watch jobs and read their states",
    {"200": _json("The states of the jobs.", "WatchAnswer")},
    *_V1,
    description="The listener reads unknown jobs from Airbyte. Repeat the call to extend the watch.",
    requestBody=_list_body("jobs", "WatchedJob", {"instance": "default", "job_id": 17}),
)

_RECEIPTS = _post(
    "reportReceipts",
    "Report that tasks have received completions",
    {"202": _json("The receipts are stored.", "ReceiptAnswer")},
    *_V1,
    description="For people: the job shows when each task received its completion. Receipts of jobs that have not"
    f" completed here are ignored, and a job keeps {MAX_RECEIPTS}.",
    requestBody=_list_body(
        "receipts", "TaskReceipt", {"instance": "default", "job_id": 17, "seconds_ago": 0.4, "waited_seconds": 61.2}
    ),
)

_WEBHOOK = _post(
    "receiveNotification",
    "Receive a notification from Airbyte",
    {
        "200": _json("The notification is stored. It is a duplicate, or reports no completed job.", "Kept"),
        "202": _json("The notification is stored and will be confirmed by Airbyte's API.", "Kept"),
    },
    *(400, 404, 413, 429, 503),
    description="The listener responds once the body is stored durably. Every wrong URL gets the same 404.",
    security=[],
    parameters=[
        _parameter("instance", "path", "The name of the Airbyte instance in the listener's settings.", _SEGMENT),
        _parameter("token", "path", "One of the listener's webhook tokens.", _SEGMENT),
    ],
    requestBody=_body(f"The JSON object that Airbyte sends, at most {MAX_NOTIFICATION} bytes.", {"type": "object"}),
)

_JOB = [
    _parameter("instance", "path", "The job's Airbyte instance.", _SEGMENT),
    _parameter("job_id", "path", "The job's id in Airbyte.", ID),
]

_PATHS = {
    "/webhooks/{instance}/{token}": _WEBHOOK,
    "/v1/events": _EVENTS,
    "/v1/watches": _WATCH,
    "/v1/receipts": _RECEIPTS,
    "/v1/jobs": _get(
        "listJobs",
        "List the latest job states, newest first",
        {"200": _json("A page of job states.", "JobPage")},
        *_V1,
        parameters=[*_FILTERS, *_PAGING],
    ),
    "/v1/jobs/{instance}/{job_id}": _get(
        "getJob",
        "Read a job and its history",
        {"200": _json("The job.", "JobDetail")},
        *(404, *_V1),
        parameters=_JOB,
    ),
    "/v1/jobs/{instance}/{job_id}/retry": _post(
        "retryJob",
        "Start a sync of a job's connection",
        {"202": _json("The job that was started, or that was active already.", "ActedOn")},
        *(403, 404, 409, 502, *_V1),
        description="Needs an operator token. Nothing is started while another job of the connection is active.",
        parameters=_JOB,
    ),
    "/v1/jobs/{instance}/{job_id}/cancel": _post(
        "cancelJob",
        "Cancel an active job",
        {"202": _json("Airbyte cancels the job. Its state follows in the feed.", "ActedOn")},
        *(403, 404, 409, 502, *_V1),
        description="Needs an operator token.",
        parameters=_JOB,
    ),
    "/v1/notifications/{id}/body": _get(
        "readBody",
        "Read a notification's body without secrets",
        {"200": _json("The body.", "NotificationBody")},
        *(403, 404, *_V1),
        description="Needs an operator token.",
        parameters=[_parameter("id", "path", "The notification's id.", ID)],
    ),
    "/v1/progress": _get(
        "readProgress",
        "Read the progress of active jobs",
        {"200": _json("The progress of those of the jobs that are active.", "ProgressList")},
        *_V1,
        description="The listener requests it from Airbyte, with a few requests a minute for all callers. Beyond that,"
        " it returns earlier values; `observed_at` has their time. It is neither stored nor published.",
        parameters=[
            _parameter("instance", "query", "The jobs' Airbyte instance.", _SEGMENT, required=True),
            _parameter(*("job_id", "query", "The jobs.", array(ID, minItems=1, maxItems=MAX_PROGRESS)), required=True),
            _parameter(
                "streams", "query", "Also request each stream's progress: for one job, or few.", {"type": "boolean"}
            ),
            _parameter(
                "max_age",
                "query",
                "Seconds up to which an earlier response is as good; from 20 on, few requests are sent for the caller.",
                {"type": "integer", "minimum": 0, "maximum": MAX_AGE, "default": 0},
            ),
        ],
    ),
    "/v1/signals": _get(
        "listSignals",
        "List the latest states of signals, newest first",
        {"200": _json("A page of signals.", "SignalPage")},
        *_V1,
        parameters=[
            *_FILTERS[:2],
            _parameter("raised", "query", "Only raised (`true`) or resolved (`false`) signals.", {"type": "boolean"}),
            *_PAGING,
        ],
    ),
    "/v1/notifications": _get(
        "listNotifications",
        "List the notifications received from Airbyte, newest first",
        {"200": _json("A page of notifications.", "NotificationPage")},
        *_V1,
        parameters=_PAGING,
    ),
    "/v1/notifications/{id}/replay": _post(
        "replayNotification",
        "Confirm a notification again",
        {"202": _json("The notification will be confirmed again.", "Kept")},
        *(404, 409, *_V1),
        parameters=[_parameter("id", "path", "The notification's id.", ID)],
    ),
    "/v1/probes": _post(
        "announceProbe",
        "Announce a probe: a test to the webhook receiver whose URL has the query `probe=` and its id",
        {"200": _json("The probe. This process remembers it for ten minutes.", "Probe")},
        *_V1,
    ),
    "/v1/probes/{probe}": _get(
        "getProbe",
        "Return whether and how a probe has arrived at the receiver of this process",
        {"200": _json("The probe.", "Probe")},
        *(404, *_V1),
        parameters=[_parameter("probe", "path", "The id of the probe.", _SEGMENT)],
    ),
    "/v1/deliveries": _get(
        "listDeliveries",
        "List the deliveries of forwarded and outgoing notifications, newest first",
        {"200": _json("A page of deliveries.", "DeliveryPage")},
        *_V1,
        parameters=[_parameter("state", "query", "Only deliveries in this state.", named(DeliveryState)), *_PAGING],
    ),
    "/v1/deliveries/{id}/retry": _post(
        "retryDelivery",
        "Send a dead delivery again",
        {"202": _json("The delivery is due.", "Retried")},
        *(404, 409, *_V1),
        parameters=[_parameter("id", "path", "The delivery's id.", ID)],
    ),
    "/v1/status": _get(
        "status",
        "Read the status of the listener, its store and its instances",
        {"200": _json("The status.", "Status")},
        *_V1,
    ),
    "/healthz": _get(
        "health",
        "Check whether the process needs a restart",
        {
            "200": _json("The process works.", "Health"),
            "503": _json("The store has failed writes for ten minutes, and not because it is full.", "Health"),
        },
        security=[],
    ),
    "/readyz": _get(
        "readiness",
        "Check whether all parts work",
        {
            "200": _json("All parts work.", "Readiness"),
            "503": _json("At least one part fails. `faults` names it.", "Readiness"),
        },
        security=[],
    ),
    "/metrics": _get(
        "metrics",
        "Read the metrics for Prometheus",
        {
            "200": {
                "description": "The metrics, at most 2 s old.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
        *(401, 429),
        description="Requires a token if the settings have metrics tokens.",
        security=[{}, {"metrics": []}],
    ),
    "/openapi.json": _get(
        "openapi", "Read this document", {"200": _json("The OpenAPI document.", {"type": "object"})}, security=[]
    ),
}

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "airbyte-events listener",
        "version": __version__,
        "summary": "Events of Airbyte jobs, within milliseconds of their completion.",
        "description": (
            "Every `GET` path also answers `HEAD`. All other paths and methods get the same 404, except the dashboard's"
            " pages and its log-in."
        ),
        "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
    },
    "security": [{"token": []}],
    "paths": _PATHS,
    "components": {
        "schemas": SCHEMAS,
        "responses": dict(_REFUSALS.values()),
        "securitySchemes": {
            "token": {"type": "http", "scheme": "bearer", "description": "One of the listener's API tokens."},
            "metrics": {"type": "http", "scheme": "bearer", "description": "One of the listener's metrics tokens."},
        },
    },
}
"""The document. Its readers must not change it."""

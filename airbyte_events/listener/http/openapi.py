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
from airbyte_events.listener.http.schemas import CURSOR, CURSOR_PATTERN, ID, SCHEMAS, TEXT, Schema, array, named, ref
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


def _query(name: str, description: str, schema: Schema, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema, **more}


def _in_path(name: str, description: str, schema: Schema) -> dict[str, Any]:
    return _query(name, description, schema) | {"in": "path", "required": True}


_V1 = (400, 401, 429, 503)
"""The refusals of every operation that needs an API token."""


def _get(
    id_: str, summary: str, response: dict[str, Any], *, status: int = 200, refusals: tuple[int, ...] = (), **more: Any
) -> dict[str, Any]:
    """Return an operation. It needs an API token, unless ``security`` is given.

    :param status: that of the response to a success.
    :param refusals: the other statuses, of :data:`_REFUSALS`.
    :param more: ``others``, the responses of its own, and what the document says of the operation.
    """
    responses = {status: response} | more.pop("others", {})
    refusals = refusals if "security" in more else (*refusals, *_V1)
    responses |= {code: {"$ref": f"#/components/responses/{_REFUSALS[code][0]}"} for code in refusals}
    method, sorted_ = more.pop("method", "get"), {str(code): responses[code] for code in sorted(responses)}
    return {method: {"operationId": id_, "summary": summary, **more, "responses": sorted_}}


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

_FILTERS = [
    _query("instance", "Only these Airbyte instances, comma-separated.", array(_NAME, minItems=1)),
    _query("connection_id", "Only these Airbyte connections.", array(_NAME, minItems=1)),
    _query("job_id", "Only these jobs.", array(ID, minItems=1)),
    _query("status", "Only these job statuses.", array(named(JobStatus), minItems=1)),
    _query("terminal", "Only terminal (`true`) or only active (`false`) statuses.", {"type": "boolean"}),
]
_SIGNALS = "Also signals, which match by instance and connection only. In a stream they are frames `signal`."
_PAGING = [
    _query("limit", "The largest number of items on a page. A page also ends at about 1 MiB.", _LIMIT),
    _query("before", "The `next` of the previous page.", _POSITION),
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

_JOB = [
    _in_path("instance", "The job's Airbyte instance.", _SEGMENT),
    _in_path("job_id", "The job's id in Airbyte.", ID),
]
_ACTION: dict[str, Any] = {"refusals": (403, 404, 409, 502), "status": 202, "parameters": _JOB}

_PATHS = {
    "/webhooks/{instance}/{token}": _post(
        "receiveNotification",
        "Receive a notification from Airbyte",
        _json("The notification is stored. It is a duplicate, or reports no completed job.", "Kept"),
        refusals=(400, 404, 413, 429, 503),
        description="The listener responds once the body is stored durably. Every wrong URL gets the same 404.",
        others={202: _json("The notification is stored and will be confirmed by Airbyte's API.", "Kept")},
        security=[],
        parameters=[
            _in_path("instance", "The name of the Airbyte instance in the listener's settings.", _SEGMENT),
            _in_path("token", "One of the listener's webhook tokens.", _SEGMENT),
        ],
        requestBody=_body(f"The JSON object that Airbyte sends, at most {MAX_NOTIFICATION} bytes.", {"type": "object"}),
    ),
    "/v1/events": _get(
        "followEvents",
        "Follow job events, as a stream or by long polling",
        {
            "description": "A page of events, or a stream.",
            "content": {
                "application/json": {"schema": ref("EventPage")},
                "text/event-stream": {
                    "schema": {"type": "string", "description": _STREAM_FRAMES},
                    "example": _STREAM_EXAMPLE,
                },
            },
        },
        others={410: _json("Only pages: the events behind the cursor are no longer stored.", "Reset")},
        description="With `Accept: text/event-stream`, the response is a stream that starts behind the given cursor, or"
        " with the next event. Otherwise it is one page of events; with `wait`, an empty page is held back until an"
        " event arrives or the time is over.",
        parameters=[
            *_FILTERS,
            _query("signals", _SIGNALS, {"type": "boolean", "default": False}),
            _query("after", "The cursor of the last event that was read. Without it, only new events.", _AFTER),
            _query("wait", "Only pages: the time to wait for an event, in seconds.", _SECONDS),
            _query("limit", "Only pages: the largest number of events. A page also ends at about 1 MiB.", _LIMIT),
            _query("Last-Event-ID", "Overrides `after`. Browsers send it when they reconnect a stream.", _AFTER)
            | {"in": "header"},
        ],
    ),
    "/v1/watches": _post(
        "watchJobs",
        "Watch jobs and read their states",
        _json("The states of the jobs.", "WatchAnswer"),
        description="The listener reads unknown jobs from Airbyte. Repeat the call to extend the watch.",
        requestBody=_list_body("jobs", "WatchedJob", {"instance": "default", "job_id": 17}),
    ),
    "/v1/receipts": _post(
        "reportReceipts",
        "Report that tasks have received completions",
        _json("The receipts are stored.", "ReceiptAnswer"),
        status=202,
        description="For people: the job shows when each task received its completion. Receipts of jobs that have not"
        f" completed here are ignored, and a job keeps {MAX_RECEIPTS}.",
        requestBody=_list_body(
            "receipts", "TaskReceipt", {"instance": "default", "job_id": 17, "seconds_ago": 0.4, "waited_seconds": 61.2}
        ),
    ),
    "/v1/jobs": _get(
        "listJobs",
        "List the latest job states, newest first",
        _json("A page of job states.", "JobPage"),
        parameters=[*_FILTERS, *_PAGING],
    ),
    "/v1/jobs/{instance}/{job_id}": _get(
        "getJob", "Read a job and its history", _json("The job.", "JobDetail"), refusals=(404,), parameters=_JOB
    ),
    "/v1/jobs/{instance}/{job_id}/retry": _post(
        "retryJob",
        "Start a sync of a job's connection",
        _json("The job that was started, or that was active already.", "ActedOn"),
        description="Needs an operator token. Nothing is started while another job of the connection is active.",
        **_ACTION,
    ),
    "/v1/jobs/{instance}/{job_id}/cancel": _post(
        "cancelJob",
        "Cancel an active job",
        _json("Airbyte cancels the job. Its state follows in the feed.", "ActedOn"),
        description="Needs an operator token.",
        **_ACTION,
    ),
    "/v1/notifications/{id}/body": _get(
        "readBody",
        "Read a notification's body without secrets",
        _json("The body.", "NotificationBody"),
        refusals=(403, 404),
        description="Needs an operator token.",
        parameters=[_in_path("id", "The notification's id.", ID)],
    ),
    "/v1/progress": _get(
        "readProgress",
        "Read the progress of active jobs",
        _json("The progress of those of the jobs that are active.", "ProgressList"),
        description="The listener requests it from Airbyte, with a few requests a minute for all callers. Beyond that,"
        " it returns earlier values; `observed_at` has their time. It is neither stored nor published.",
        parameters=[
            _query("instance", "The jobs' Airbyte instance.", _SEGMENT, required=True),
            _query("job_id", "The jobs.", array(ID, minItems=1, maxItems=MAX_PROGRESS), required=True),
            _query("streams", "Also request each stream's progress: for one job, or few.", {"type": "boolean"}),
            _query(
                "max_age",
                "Seconds up to which an earlier response is as good; from 20 on, few requests are sent for the caller.",
                {"type": "integer", "minimum": 0, "maximum": MAX_AGE, "default": 0},
            ),
        ],
    ),
    "/v1/signals": _get(
        "listSignals",
        "List the latest states of signals, newest first",
        _json("A page of signals.", "SignalPage"),
        parameters=[
            *_FILTERS[:2],
            _query("raised", "Only raised (`true`) or resolved (`false`) signals.", {"type": "boolean"}),
            *_PAGING,
        ],
    ),
    "/v1/notifications": _get(
        "listNotifications",
        "List the notifications received from Airbyte, newest first",
        _json("A page of notifications.", "NotificationPage"),
        parameters=_PAGING,
    ),
    "/v1/notifications/{id}/replay": _post(
        "replayNotification",
        "Confirm a notification again",
        _json("The notification will be confirmed again.", "Kept"),
        refusals=(404, 409),
        status=202,
        parameters=[_in_path("id", "The notification's id.", ID)],
    ),
    "/v1/probes": _post(
        "announceProbe",
        "Announce a probe: a test to the webhook receiver whose URL has the query `probe=` and its id",
        _json("The probe. This process remembers it for ten minutes.", "Probe"),
    ),
    "/v1/probes/{probe}": _get(
        "getProbe",
        "Return whether and how a probe has arrived at the receiver of this process",
        _json("The probe.", "Probe"),
        refusals=(404,),
        parameters=[_in_path("probe", "The id of the probe.", _SEGMENT)],
    ),
    "/v1/deliveries": _get(
        "listDeliveries",
        "List the deliveries of forwarded and outgoing notifications, newest first",
        _json("A page of deliveries.", "DeliveryPage"),
        parameters=[_query("state", "Only deliveries in this state.", named(DeliveryState)), *_PAGING],
    ),
    "/v1/deliveries/{id}/retry": _post(
        "retryDelivery",
        "Send a dead delivery again",
        _json("The delivery is due.", "Retried"),
        refusals=(404, 409),
        status=202,
        parameters=[_in_path("id", "The delivery's id.", ID)],
    ),
    "/v1/status": _get(
        "status", "Read the status of the listener, its store and its instances", _json("The status.", "Status")
    ),
    "/healthz": _get(
        "health",
        "Check whether the process needs a restart",
        _json("The process works.", "Health"),
        others={503: _json("The store has failed writes for ten minutes, and not because it is full.", "Health")},
        security=[],
    ),
    "/readyz": _get(
        "readiness",
        "Check whether all parts work",
        _json("All parts work.", "Readiness"),
        others={503: _json("At least one part fails. `faults` names it.", "Readiness")},
        security=[],
    ),
    "/metrics": _get(
        "metrics",
        "Read the metrics for Prometheus",
        {"description": "The metrics, at most 2 s old.", "content": {"text/plain": {"schema": TEXT}}},
        refusals=(401, 429),
        description="Requires a token if the settings have metrics tokens.",
        security=[{}, {"metrics": []}],
    ),
    "/openapi.json": _get(
        "openapi", "Read this document", _json("The OpenAPI document.", {"type": "object"}), security=[]
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

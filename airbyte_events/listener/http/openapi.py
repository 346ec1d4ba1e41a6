"""The OpenAPI document of the listener's HTTP API, served as ``/openapi.json``.

It is written by hand, and held to what the listener really has and answers by tests.
"""

from __future__ import annotations

from typing import Any

from airbyte_events import __version__
from airbyte_events.events import JobStatus
from airbyte_events.listener.http.api import MAX_BODY, MAX_WATCHES
from airbyte_events.listener.http.receiver import MAX_BODY as MAX_NOTIFICATION
from airbyte_events.listener.http.schemas import CURSOR, CURSOR_PATTERN, ID, SCHEMAS, Schema, array, named, ref
from airbyte_events.store.records import DeliveryState


def _json(description: str, schema: str, **headers: Schema) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": ref(schema)}},
    }
    if headers:
        response["headers"] = {name.replace("_", "-"): {"schema": of} for name, of in headers.items()}
    return response


def _refused(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/responses/{name}"}


_WAIT: Schema = {"type": "string", "pattern": "^[0-9]+$", "description": "Seconds."}

_RESPONSES = {
    "BadRequest": _json("A parameter or the body is wrong; the message names it.", "Error"),
    "Unauthorized": _json("The token is missing or wrong.", "Error", WWW_Authenticate={"const": "Bearer"}),
    "NotFound": _json("There is no such thing.", "Error"),
    "Conflict": _json("There is nothing to do again here.", "Error"),
    "TooLarge": _json("The body is too long.", "Error"),
    "TooMany": _json("Too many requests without a right token came from this address.", "Error", Retry_After=_WAIT),
    "Unavailable": _json(
        "The event store can't be used now, or too much is asked at the same time.", "Error", Retry_After=_WAIT
    ),
}

_BY_STATUS = {
    "400": "BadRequest",
    "401": "Unauthorized",
    "404": "NotFound",
    "409": "Conflict",
    "413": "TooLarge",
    "429": "TooMany",
    "503": "Unavailable",
}


def _refusals(*statuses: int) -> dict[str, Any]:
    return {str(status): _refused(_BY_STATUS[str(status)]) for status in statuses}


def _query(name: str, description: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _path(name: str, description: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


_NAME: Schema = {"type": "string", "pattern": r"^[^,\u0000]+$"}
_SEGMENT: Schema = {"type": "string", "pattern": r"^[^/\u0000]+$"}

_FILTERS = [
    _query("instance", "Only of these Airbyte instances; several with commas between.", array(_NAME, minItems=1)),
    _query("connection_id", "Only of these Airbyte connections.", array(_NAME, minItems=1)),
    _query("job_id", "Only these jobs.", array(ID, minItems=1)),
    _query("status", "Only these states.", array(named(JobStatus), minItems=1)),
    _query("terminal", "Only terminal (`true`) or only active (`false`) states.", {"type": "boolean"}),
]

_LIMIT = _query(
    "limit",
    "How many at most; a page ends at about 1 MiB, too.",
    {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
)
_BEFORE = _query(
    "before", "The `next` of the page before this one.", {"type": "integer", "minimum": 0, "maximum": 2**53}
)

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

_EVENTS = {
    "operationId": "followEvents",
    "summary": "Job events: a stream, or page by page",
    "description": (
        "With `Accept: text/event-stream` a stream that begins with what happens from now on, or behind the cursor"
        " that is given, and does not end by itself. Otherwise one page; `wait` holds an empty one back until"
        " something happens."
    ),
    "parameters": [
        *_FILTERS,
        _query(
            "after",
            "The last cursor that was seen. Empty, or none: from now on.",
            {**CURSOR, "pattern": CURSOR_PATTERN[:-1] + "$|^$"},
        ),
        _query(
            "wait",
            "Pages: how many seconds to wait for something to happen.",
            {"type": "number", "minimum": 0, "maximum": 60, "default": 0},
        ),
        {**_LIMIT, "description": "Pages: how many events at most; a page ends at about 1 MiB, too."},
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "As `after`, before which it counts: browsers send it when they connect again.",
            "schema": {**CURSOR, "pattern": CURSOR_PATTERN[:-1] + "$|^$"},
        },
    ],
    "responses": {
        "200": {
            "description": "A page, or a stream.",
            "content": {
                "application/json": {"schema": ref("EventPage")},
                "text/event-stream": {
                    "schema": {
                        "type": "string",
                        "description": (
                            "Server-sent events; each one's `data` is a JSON object: `hello` (Hello), `job` (Event),"
                            " `bookmark` (Bookmark), `reset` (ResetFrame) and `goaway` (Goaway)."
                        ),
                    },
                    "example": _STREAM_EXAMPLE,
                },
            },
        },
        **_refusals(400, 401),
        "410": _json("Pages: what followed the cursor is not known any more.", "Reset"),
        **_refusals(429, 503),
    },
}

_WATCH = {
    "operationId": "watchJobs",
    "summary": "Watch jobs, and tell their states",
    "description": "Airbyte is asked for those that are not known. To repeat it prolongs the watch.",
    "requestBody": {
        "required": True,
        "description": f"At most {MAX_BODY} bytes.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["jobs"],
                    "properties": {"jobs": array(ref("WatchedJob"), maxItems=MAX_WATCHES)},
                },
                "example": {"jobs": [{"instance": "default", "job_id": 17}]},
            }
        },
    },
    "responses": {"200": _json("Their states.", "WatchAnswer"), **_refusals(400, 401, 429, 503)},
}

_WEBHOOK = {
    "operationId": "receiveNotification",
    "summary": "Take a notification of Airbyte's",
    "description": (
        "Answers once the body is stored. Every refusal of an address is the same 404, whatever is wrong with it."
    ),
    "security": [],
    "parameters": [
        _path("instance", "An Airbyte instance, by the name that the listener's settings give it.", _SEGMENT),
        _path("token", "One of the listener's webhook tokens.", _SEGMENT),
    ],
    "requestBody": {
        "required": True,
        "description": f"What Airbyte sends: a JSON object of at most {MAX_NOTIFICATION} bytes.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
    "responses": {
        "200": _json("Stored; it came before, or tells of no job's end.", "Kept"),
        "202": _json("Stored, and about to be confirmed by Airbyte's API.", "Kept"),
        **_refusals(400, 404, 413, 429, 503),
    },
}

_PATHS: dict[str, dict[str, Any]] = {
    "/webhooks/{instance}/{token}": {"post": _WEBHOOK},
    "/v1/events": {"get": _EVENTS},
    "/v1/watches": {"post": _WATCH},
    "/v1/jobs": {
        "get": {
            "operationId": "listJobs",
            "summary": "Latest states, the newest first",
            "parameters": [*_FILTERS, _LIMIT, _BEFORE],
            "responses": {"200": _json("A page.", "JobPage"), **_refusals(400, 401, 429, 503)},
        }
    },
    "/v1/jobs/{instance}/{job_id}": {
        "get": {
            "operationId": "getJob",
            "summary": "One job with its history",
            "parameters": [
                _path("instance", "The job's Airbyte instance.", _SEGMENT),
                _path("job_id", "Its id there.", ID),
            ],
            "responses": {"200": _json("What is known.", "JobDetail"), **_refusals(401, 404, 429, 503)},
        }
    },
    "/v1/notifications": {
        "get": {
            "operationId": "listNotifications",
            "summary": "What came from Airbyte, the newest first",
            "parameters": [_LIMIT, _BEFORE],
            "responses": {"200": _json("A page.", "NotificationPage"), **_refusals(400, 401, 429, 503)},
        }
    },
    "/v1/notifications/{id}/replay": {
        "post": {
            "operationId": "replayNotification",
            "summary": "Confirm a notification again",
            "parameters": [_path("id", "The notification's id.", ID)],
            "responses": {
                "202": _json("It is about to be confirmed.", "Kept"),
                **_refusals(401, 404, 409, 429, 503),
            },
        }
    },
    "/v1/deliveries": {
        "get": {
            "operationId": "listDeliveries",
            "summary": "What was, is to be or could not be forwarded, the newest first",
            "parameters": [_query("state", "Only in this state.", named(DeliveryState)), _LIMIT, _BEFORE],
            "responses": {"200": _json("A page.", "DeliveryPage"), **_refusals(400, 401, 429, 503)},
        }
    },
    "/v1/deliveries/{id}/retry": {
        "post": {
            "operationId": "retryDelivery",
            "summary": "Send a dead delivery again",
            "parameters": [_path("id", "The delivery's id.", ID)],
            "responses": {"202": _json("It is due.", "Retried"), **_refusals(401, 404, 409, 429, 503)},
        }
    },
    "/v1/status": {
        "get": {
            "operationId": "status",
            "summary": "How the listener, its store and its instances do",
            "responses": {"200": _json("So.", "Status"), **_refusals(401, 429, 503)},
        }
    },
    "/healthz": {
        "get": {
            "operationId": "health",
            "summary": "Whether the process runs, and need not be started anew",
            "security": [],
            "responses": {
                "200": _json("It does.", "Health"),
                "503": _json("The store could not be written for ten minutes, and not for want of space.", "Health"),
            },
        }
    },
    "/readyz": {
        "get": {
            "operationId": "readiness",
            "summary": "Whether all parts work",
            "security": [],
            "responses": {"200": _json("They do.", "Readiness"), "503": _json("Some do not.", "Readiness")},
        }
    },
    "/metrics": {
        "get": {
            "operationId": "metrics",
            "summary": "Numbers for Prometheus",
            "description": "Wants a token where the settings have metrics tokens. What it tells is 2 s old at most.",
            "security": [{}, {"metrics": []}],
            "responses": {
                "200": {"description": "They.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                **_refusals(401, 429),
            },
        }
    },
    "/openapi.json": {
        "get": {
            "operationId": "openapi",
            "summary": "This document",
            "security": [],
            "responses": {
                "200": {"description": "It.", "content": {"application/json": {"schema": {"type": "object"}}}}
            },
        }
    },
}

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "airbyte-events listener",
        "version": __version__,
        "summary": "Job events of Airbyte, the moment they happen.",
        "description": (
            "Every `GET` also answers `HEAD`. What is not described here is answered by the one 404, another method on"
            " a path that is, too; but for the dashboard's pages and their log-in."
        ),
        "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
    },
    "security": [{"token": []}],
    "paths": _PATHS,
    "components": {
        "schemas": SCHEMAS,
        "responses": _RESPONSES,
        "securitySchemes": {
            "token": {"type": "http", "scheme": "bearer", "description": "One of the listener's API tokens."},
            "metrics": {"type": "http", "scheme": "bearer", "description": "One of its metrics tokens."},
        },
    },
}
"""The document. What reads it must not change it."""

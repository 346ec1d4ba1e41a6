"""Routes and responses of Airbyte's public API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airbyte_events.airbyte import AirbyteClient
from support.servers import ScriptedServer

BASE = "/api/public/v1"
JOB_PATH = f"GET {BASE}/jobs/5"
JOBS = f"GET {BASE}/jobs"
CREATE = f"POST {BASE}/jobs"
CANCEL = f"DELETE {BASE}/jobs/5"
TOKEN = f"POST {BASE}/applications/token"

SECRET = "s3cr3t-of-the-client"
RUNNING = {"jobId": 5, "status": "running", "jobType": "sync", "startTime": "2024-01-01T00:00Z", "connectionId": "c"}
ENDED = RUNNING | {"status": "succeeded", "lastUpdatedAt": "2024-01-01T01:00:00Z", "duration": "PT1H"}

Make = Callable[..., AirbyteClient]


def token(value: str = "t0ken-1", expires_in: Any = 900) -> dict[str, Any]:
    return {"access_token": value, "token_type": "Bearer", "expires_in": expires_in}


def problem(kind: str, message: str) -> dict[str, Any]:
    return {
        "title": "a title",
        "detail": "a detail",
        "type": f"https://reference.airbyte.com/reference/errors#{kind}",
        "data": {"message": message},
    }


def authorizations(server: ScriptedServer) -> list[str | None]:
    return [r.headers.get("authorization") for r in server.requests if not r.path.endswith("/token")]

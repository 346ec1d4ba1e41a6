"""What the demo and the tests ask of a running Airflow, over its REST API (version 2)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDED = frozenset({"success", "failed", "upstream_failed", "skipped", "removed"})
"""The states that a task instance stays in."""

PAGE = 100
"""Task instances: as many as Airflow gives at a time."""

BUSY_RETRIES = 5
"""How often a request is sent again, a second apart, that Airflow's database was too busy for."""


class AirflowApiError(Exception):
    """Airflow refused a request, or did not answer it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInstance:
    """One task of one run, as Airflow has it now. Times are aware; None is not yet.

    :param map_index: -1 for a task that is not mapped.
    """

    task_id: str
    map_index: int = -1
    state: str | None
    try_number: int
    start_date: datetime | None
    end_date: datetime | None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of a task's log; what the triggerer wrote is among them.

    :param fields: what the line carries beside time, level and text.
    """

    time: datetime | None
    level: str | None
    event: str
    fields: Mapping[str, Any]

    def __str__(self) -> str:
        """The text, and what went wrong if the line tells of an exception."""
        causes = (f"{error['exc_type']}: {error['exc_value']}" for error in self.fields.get("error_detail") or ())
        return "; ".join((self.event, *causes))


class AirflowApi:
    """A client for an Airflow whose simple auth manager lets everybody in as admin.

    :param url: the API server's URL.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30.0, trust_env=False)
        self._authorized = False

    def close(self) -> None:
        self._client.close()

    def health(self) -> dict[str, str]:
        """The status by component (``metadatabase``, ``scheduler``, ``triggerer``, ``dag_processor``); empty while
        the API server does not answer.
        """
        try:
            answer = self._client.get("/api/v2/monitor/health")
        except httpx.TransportError:
            return {}
        if answer.status_code != httpx.codes.OK:
            return {}
        return {name: str(part["status"]) for name, part in answer.json().items() if part is not None}

    def request(self, method: str, path: str, *, json: object = None, params: Mapping[str, Any] | None = None) -> Any:
        """Any call, by its path below ``/api/v2``.

        :return: the decoded body, None if there is none.
        :raises AirflowApiError: for an error status, or no answer.
        """
        if not self._authorized:
            self._authorize()
        answer = self._send(method, f"/api/v2{path}", json=json, params=params)
        return answer.json() if answer.content else None

    def _authorize(self) -> None:
        token = self._send("GET", "/auth/token").json()["access_token"]
        self._client.headers["Authorization"] = f"Bearer {token}"
        self._authorized = True

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        answer = self._try(method, path, **content)
        for _ in range(BUSY_RETRIES):
            if answer.status_code != httpx.codes.INTERNAL_SERVER_ERROR or "Database error" not in answer.text:
                break
            # SQLite was locked for longer than Airflow waits: it has undone what it began, so it may be asked again.
            time.sleep(1)
            answer = self._try(method, path, **content)
        if answer.is_error:
            raise AirflowApiError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer

    def _try(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, headers={"Accept": "application/json"}, **content)
        except httpx.TransportError as exc:
            raise AirflowApiError(f"{method} {path}: no answer: {exc}") from exc

    def dag_known(self, dag_id: str) -> bool:
        """Whether the DAG processor has brought the DAG in."""
        try:
            self.request("GET", f"/dags/{dag_id}")
        except AirflowApiError as exc:
            if ": 404 " in str(exc):
                return False
            raise
        return True

    def import_errors(self) -> dict[str, str]:
        """The stack trace by file name, for the DAG files that can't be imported."""
        answer = self.request("GET", "/importErrors")
        return {error["filename"]: error["stack_trace"] for error in answer["import_errors"]}

    def unpause(self, dag_id: str) -> None:
        self.request("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def trigger_dag(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run; return its id."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self.request("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def dag_run_state(self, dag_id: str, run_id: str) -> str:
        return str(self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> dict[str, TaskInstance]:
        """The run's task instances by task id, for a run of a few tasks none of which is mapped."""
        answer = self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")
        return {found["task_id"]: _task_instance(found) for found in answer["task_instances"]}

    def all_task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """The run's task instances, however many; each of a mapped task is one."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            params = {"limit": PAGE, "offset": len(found), "order_by": "id"}
            page = self.request("GET", path, params=params)["task_instances"]
            found += page
            if len(page) < PAGE:
                return [_task_instance(each) for each in found]

    def count_task_instances(self, dag_id: str, run_id: str, state: str) -> int:
        """How many of the run's task instances are in this state."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        return int(self.request("GET", path, params={"limit": 1, "state": state})["total_entries"])

    def xcoms(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """What the task has pushed, decoded, by key (``return_value`` is what it returned)."""
        base = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries"
        keys = [entry["key"] for entry in self.request("GET", base)["xcom_entries"]]
        return {key: self.request("GET", f"{base}/{key}", params={"deserialize": "true"})["value"] for key in keys}

    def task_log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1) -> list[LogLine]:
        """The task's log so far: of the worker's parts and the triggerer's, by time."""
        answer = self.request(
            "GET",
            f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}",
            params={"full_content": "true"},
        )
        return [
            LogLine(
                time=_time(line.pop("timestamp", None)),
                level=line.pop("level", None),
                event=str(line.pop("event")),
                fields=line,
            )
            for line in answer["content"]
        ]


def _task_instance(found: Mapping[str, Any]) -> TaskInstance:
    return TaskInstance(
        task_id=found["task_id"],
        map_index=found["map_index"],
        state=found["state"],
        try_number=found["try_number"],
        start_date=_time(found["start_date"]),
        end_date=_time(found["end_date"]),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)

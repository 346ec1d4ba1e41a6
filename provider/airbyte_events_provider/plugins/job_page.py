"""The page *Airbyte job* of a task instance, in Airflow's own interface.

Airflow shows it in a frame. Its log-in and its permissions apply: who may not read the DAG's task instances and XComs
is refused. The API server requests the job: a browser needs to reach neither the listener nor Airbyte, and has no token
of theirs.
"""

from __future__ import annotations

import json
import logging
import re
from collections import OrderedDict
from typing import Any
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, Response
from sqlalchemy import select

from airbyte_events_provider.plugins.job_html import STYLE, render
from airbyte_events_provider.plugins.job_view import JobView, TaskTimes, read_job
from airbyte_events_provider.plugins.plugin import JOB_HREF
from airbyte_events_provider.waiting.wait_start import JOB_XCOM, JobReference

logger = logging.getLogger(__name__)

PATH = "/" + re.sub(r"{\w+}", lambda name: name[0].lower(), JOB_HREF)
"""The page's path. For a task that is not mapped, Airflow sends the placeholder of the index as it is."""

FRESH_SECONDS = 5.0
"""All viewers of a job share one request in this time."""

MOST_REQUESTS = 8
"""The maximum of jobs that are requested at a time."""

_MOST_KEPT = 256

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_READ = (DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM)


class JobPages:
    """Returns the pages of jobs, each requested once for all its viewers."""

    def __init__(self) -> None:
        self._requests = anyio.CapacityLimiter(MOST_REQUESTS)
        self._views: OrderedDict[JobReference, tuple[float, JobView]] = OrderedDict()
        self._turns: WeakValueDictionary[JobReference, anyio.Lock] = WeakValueDictionary()

    async def page(self, dag_id: str, run_id: str, task_id: str, map_index: str) -> Response:
        """Return the page of a task instance's job."""
        index = int(map_index) if re.fullmatch(r"[0-9]{1,9}", map_index) else -1
        reference, times = await anyio.to_thread.run_sync(read_task, dag_id, run_id, task_id, index)
        view = None if reference is None else await self.view(reference)
        return Response(render(view, times), media_type="text/html; charset=utf-8", headers=_HEADERS)

    async def view(self, reference: JobReference) -> JobView:
        """Return the job as it was in the last :data:`FRESH_SECONDS`."""
        async with self._turns.setdefault(reference, anyio.Lock()):
            kept = self._views.get(reference)
            if kept is not None and anyio.current_time() - kept[0] < FRESH_SECONDS:
                return kept[1]
            async with self._requests:
                view = await read_job(reference)
            self._views[reference] = anyio.current_time(), view
            self._views.move_to_end(reference)
            if len(self._views) > _MOST_KEPT:
                self._views.popitem(last=False)
            return view


def job_pages() -> FastAPI:
    """Return the application to mount in Airflow's API server."""
    app = FastAPI(openapi_url=None)
    app.get(PATH, dependencies=[Depends(requires_access_dag("GET", each)) for each in _READ])(JobPages().page)

    @app.get("/style.css")
    def style() -> Response:
        return Response(STYLE, media_type="text/css", headers={"X-Content-Type-Options": "nosniff"})

    return app


def read_task(dag_id: str, run_id: str, task_id: str, map_index: int) -> tuple[JobReference | None, TaskTimes]:
    """Return the job that a task instance has recorded, if any, and the task's own times, from Airflow's database."""

    def of(model: Any, *columns: Any) -> Any:
        return select(*columns).where(
            model.dag_id == dag_id, model.run_id == run_id, model.task_id == task_id, model.map_index == map_index
        )

    with create_session() as session:
        stored = session.scalar(of(XComModel, XComModel.value).where(XComModel.key == JOB_XCOM).limit(1))
        columns = ("state", "start_date", "scheduled_dttm", "queued_dttm", "end_date")
        times = session.execute(of(TaskInstance, *(getattr(TaskInstance, name) for name in columns))).first()
    state, started_at, scheduled_at, queued_at, ended_at = times or (None,) * len(columns)
    if isinstance(stored, str):
        try:
            stored = json.loads(stored)
        except ValueError:
            stored = None
    return JobReference.parse(stored), TaskTimes(
        state=state and str(state),
        started_at=started_at,
        scheduled_at=scheduled_at,
        queued_at=queued_at,
        ended_at=ended_at,
    )

"""The page of a task instance in Airflow, to which the listener links from the job."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airbyte_events._utils.json_values import web_page
from airbyte_events_provider.config import text


def task_page(ti: Any) -> str | None:
    """Return the URL; None if ``[api] base_url`` is not set.

    :param ti: the task instance; None without one, as in ``airflow dags test``.
    """
    base = text("api", "base_url")
    if ti is None or not base:
        return None
    dag_id, run_id, task_id = (quote(name, safe="") for name in (ti.dag_id, ti.run_id, ti.task_id))
    mapped = "" if ti.map_index is None or ti.map_index < 0 else f"/mapped/{ti.map_index}"
    return web_page(f"{base.rstrip('/')}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}{mapped}")

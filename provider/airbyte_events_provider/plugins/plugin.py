"""The Airflow plugin: a navigation entry, the job page of tasks and a mounted listener, as configured."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import airflow
from airflow.providers.common.compat.sdk import AirflowPlugin, conf

from airbyte_events_provider.config import SECTION
from airbyte_events_provider.plugins.portless import PortlessConnectionTests

logger = logging.getLogger(__name__)

PREFIX = "/airbyte-events"
"""The path of the mounted listener in the API server."""

JOB_PREFIX = "/airbyte-job"
"""The path of the pages of tasks' jobs in the API server."""

JOB_HREF = "dags/{DAG_ID}/runs/{RUN_ID}/tasks/{TASK_ID}/{MAP_INDEX}"
"""The page of a task instance below it, with Airflow's placeholders."""


class _Lazy:
    """A class attribute that is computed when it is read: all processes of Airflow load plugins, few read this."""

    def __init__(self, make: Callable[[], list[Any]]) -> None:
        self._make = make

    def __get__(self, instance: object, owner: type) -> list[Any]:
        return self._make()


@cache
def dashboard_entry() -> list[Any]:
    """Return the navigation entry for the listener's dashboard, if its URL is configured.

    The URL is not in an Airflow connection because the API server reads none for its pages.
    """
    url = conf.get(SECTION, "dashboard_url", fallback=None)
    if not url:
        return []
    if re.fullmatch(r"https?://[^\s@\\]+", url) is None:
        logger.error("[%s] dashboard_url is no web address: write https://airbyte-events.example.com", SECTION)
        return []
    # Without url_route it opens in a new tab: in a frame, the dashboard's login would not work.
    return [{"name": "Airbyte jobs", "href": url, "destination": "nav", "category": "browse"}]


def has_job_page() -> bool:
    """Return whether Airflow shows plugins' pages beside tasks (3.1 and newer), and this one is configured."""
    shows = tuple(int(part) for part in airflow.__version__.split(".")[:2]) >= (3, 1)
    return shows and conf.getboolean(SECTION, "job_page", fallback=True)


@cache
def external_views() -> list[Any]:
    """Return the navigation entry, and the page of a task's job."""
    # A relative address: Airflow may be served below a path.
    job = {"name": "Airbyte job", "href": f"{JOB_PREFIX[1:]}/{JOB_HREF}", "destination": "task_instance"}
    return [*dashboard_entry(), *([{**job, "url_route": "airbyte_job"}] if has_job_page() else [])]


@cache
def fastapi_apps() -> list[Any]:
    """Return the mounted listener, and the pages of tasks' jobs."""
    if not has_job_page():
        return mounted_listener()
    try:
        from airbyte_events_provider.plugins.job_page import job_pages
    except ImportError as exc:
        logger.error("no page of Airbyte jobs: this Airflow lacks what it needs: %s", exc)
        return mounted_listener()
    return [*mounted_listener(), {"name": "Airbyte job", "app": job_pages(), "url_prefix": JOB_PREFIX}]


@cache
def mounted_listener() -> list[Any]:
    """Return the listener to mount in the API server, if configured, and if the server has one worker."""
    if not conf.getboolean(SECTION, "mount_receiver", fallback=False):
        return []
    if (workers := conf.getint("api", "workers", fallback=1)) > 1:
        logger.error(
            "listener not mounted: [%s] mount_receiver needs one worker of the API server: [api] workers=%d: set it to "
            "1, or run the listener as a process of its own (airbyte-events serve)",
            SECTION,
            workers,
        )
        return []
    try:
        from airbyte_events_provider.plugins.mounted import MountedListener
    except ImportError as exc:
        logger.error(
            "listener not mounted: [%s] mount_receiver needs what is not installed (%s): "
            "pip install 'airbyte-events[server]'",
            SECTION,
            exc,
        )
        return []
    return [{"name": "Airbyte Events", "app": MountedListener(), "url_prefix": PREFIX}]


class AirbyteEventsPlugin(AirflowPlugin):
    """Adds navigation entry, job page, mounted listener, and the tests of connections without a port."""

    name = "airbyte_events"
    fastapi_root_middlewares = _Lazy(
        lambda: [{"name": "Airbyte Events: connection tests", "middleware": PortlessConnectionTests}]
    )
    external_views = _Lazy(external_views)
    fastapi_apps = _Lazy(fastapi_apps)

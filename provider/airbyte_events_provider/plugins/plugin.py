"""The Airflow plugin: a navigation entry and a mounted listener, as ``[airbyte_events]`` configures."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin, conf

from airbyte_events_provider.config import SECTION
from airbyte_events_provider.plugins.portless import PortlessConnectionTests

logger = logging.getLogger(__name__)

PREFIX = "/airbyte-events"
"""The path of the mounted listener in the API server."""


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


def connection_tests() -> list[Any]:
    """Return the middleware for the *Test* button of connections without a port."""
    return [{"name": "Airbyte Events: connection tests", "middleware": PortlessConnectionTests}]


class AirbyteEventsPlugin(AirflowPlugin):
    """Adds the navigation entry (Airflow 3.1 and newer), mounts the listener, and tests connections without a port."""

    name = "airbyte_events"
    fastapi_root_middlewares = _Lazy(connection_tests)
    external_views = _Lazy(dashboard_entry)
    fastapi_apps = _Lazy(mounted_listener)

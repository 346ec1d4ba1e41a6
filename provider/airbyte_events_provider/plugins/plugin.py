"""The Airflow plugin: adds to the web interface and the API server what ``[airbyte_events]`` configures."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin, conf

from airbyte_events_provider.config import SECTION

logger = logging.getLogger(__name__)

PREFIX = "/airbyte-events"
"""The path of the mounted listener in the API server."""


class _Lazy:
    """A class attribute that is made when it is read: every process of Airflow loads plugins, few read this."""

    def __init__(self, make: Callable[[], list[Any]]) -> None:
        self._make = make

    def __get__(self, instance: object, owner: type) -> list[Any]:
        return self._make()


@cache
def dashboard_entry() -> list[Any]:
    """Return the navigation entry that opens the listener's dashboard; none unless its address is configured.

    It is configured here and not read from an Airflow connection: the API server reads none to draw its pages.
    """
    url = conf.get(SECTION, "dashboard_url", fallback=None)
    if not url:
        return []
    if re.fullmatch(r"https?://[^\s@\\]+", url) is None:
        logger.error("[%s] dashboard_url is no web address: write https://airbyte-events.example.com", SECTION)
        return []
    # Without url_route it opens in another tab: the dashboard has a login of its own, which a frame would not have.
    return [{"name": "Airbyte jobs", "href": url, "destination": "nav", "category": "browse"}]


@cache
def mounted_listener() -> list[Any]:
    """Return the listener to mount in the API server; none unless that is configured, and it has one worker."""
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
    """Adds the navigation entry (Airflow 3.1 and newer), and mounts the listener."""

    name = "airbyte_events"
    external_views = _Lazy(dashboard_entry)
    fastapi_apps = _Lazy(mounted_listener)

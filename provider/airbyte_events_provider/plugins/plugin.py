"""What Airflow's web interface and API server have of this package: what ``[airbyte_events]`` asks for, and no more."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin, conf

from airbyte_events_provider.connections import SECTION

logger = logging.getLogger(__name__)

PREFIX = "/airbyte-events"
"""Where the listener stands in the API server."""


class _WhenAsked:
    """A class attribute that is made when it is first read: plugins are loaded by every process of Airflow."""

    def __init__(self, make: Callable[[], list[Any]]) -> None:
        self._make = make

    def __get__(self, instance: object, owner: type) -> list[Any]:
        return self._make()


@cache
def dashboard_entry() -> list[Any]:
    """The entry in the navigation that opens the listener's dashboard, if its address is configured.

    From configuration alone: an Airflow connection is nothing that an API server should read to draw its pages.
    """
    url = conf.get(SECTION, "dashboard_url", fallback=None)
    if not url:
        return []
    if re.fullmatch(r"https?://[^\s@\\]+", url) is None:
        logger.error("[%s] dashboard_url is no web address: write https://airbyte-events.example.com", SECTION)
        return []
    # Without a route of its own it opens in another tab: it wants a login that it would not have within Airflow's.
    return [{"name": "Airbyte jobs", "href": url, "destination": "nav", "category": "browse"}]


@cache
def mounted_listener() -> list[Any]:
    """The listener within the API server, if that is configured."""
    if not conf.getboolean(SECTION, "mount_receiver", fallback=False):
        return []
    try:
        from airbyte_events_provider.plugins.mounted import MountedListener
    except ImportError as exc:
        logger.error(
            "[%s] mount_receiver: the listener is not installed (%s): pip install 'airbyte-events[server]'",
            SECTION,
            exc,
        )
        return []
    return [{"name": "Airbyte Events", "app": MountedListener(), "url_prefix": PREFIX}]


class AirbyteEventsPlugin(AirflowPlugin):
    """The navigation entry (Airflow 3.1 and newer), and the mounted listener."""

    name = "airbyte_events"
    external_views = _WhenAsked(dashboard_entry)
    fastapi_apps = _WhenAsked(mounted_listener)

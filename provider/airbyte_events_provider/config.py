"""The section ``[airbyte_events]`` of Airflow's configuration."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import conf

SECTION = "airbyte_events"


def poll_interval(at_least: float = 0.0) -> float:
    """Return the seconds between the shared polls of deferred tasks.

    :param at_least: the task's own interval.
    """
    shared: float = conf.getfloat(SECTION, "poll_interval", fallback=3.0)
    return max(at_least, shared)

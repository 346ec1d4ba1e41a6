"""The section ``[airbyte_events]`` of Airflow's configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from airflow.providers.common.compat.sdk import conf

SECTION = "airbyte_events"


def text(section: str, option: str) -> str | None:
    """Return an option of Airflow's configuration, which each of thousands of triggers may read.

    Airflow searches all of its sources each time, 30 µs and more. Within a process only the option's environment
    variable can change.
    """
    found: str | None = _read(conf.get, section, option, None, _variable(section, option))
    return found


def number(section: str, option: str, *, default: float) -> float:
    """Return a number as :func:`text` does."""
    found: float = _read(conf.getfloat, section, option, default, _variable(section, option))
    return found


def _variable(section: str, option: str) -> str | None:
    return os.environ.get(f"AIRFLOW__{section.upper()}__{option.upper()}")


@lru_cache
def _read(get: Callable[..., Any], section: str, option: str, fallback: float | None, _: str | None) -> Any:
    return get(section, option, fallback=fallback)


def poll_interval(at_least: float = 0.0) -> float:
    """Return the seconds between the shared polls of deferred tasks.

    :param at_least: the task's own interval.
    """
    return max(at_least, number(SECTION, "poll_interval", default=3.0))

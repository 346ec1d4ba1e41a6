"""The provider's metrics among Airflow's own (``[metrics]`` in Airflow's configuration: StatsD, OpenTelemetry).

================================================= ======= ==============================================================
name                                              kind    meaning
================================================= ======= ==============================================================
``airbyte_events.ends.<origin>``                  counter completed jobs that reached their trigger, detected by
                                                          ``webhook``, ``poll`` or ``submit``
``airbyte_events.ends.<origin>.lag``              timer   from the job's completion to its trigger
``airbyte_events.ends.<origin>.delivery``         timer   from its detection, here or in the listener, to its trigger
``airbyte_events.requests``                       counter responses of Airbyte's API to this process
``airbyte_events.hubs``                           counter hubs that a triggerer has opened
================================================= ======= ==============================================================
"""

from __future__ import annotations

import contextlib
import importlib
from datetime import datetime, timedelta
from typing import Any

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events._utils.tracing import record
from airbyte_events.events import JobEvent


def _stats() -> Any:
    # The first is configured in the triggerer; from Airflow 3.2 on, the second in tasks.
    for name in ("airflow.observability.stats", "airflow.stats"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name).Stats
    return None


Stats = _stats()


def count_completion(event: JobEvent) -> None:
    """Count a completed job at its trigger."""
    name = f"ends.{event.origin.value}"
    _count(name)
    _time(f"{name}.lag", event.finished_at)
    _time(f"{name}.delivery", event.observed_at)
    record("trigger", event.ref, event.observed_at, status=event.status.value, origin=event.origin.value)


async def count_hub() -> None:
    """Count a hub of a triggerer, in a thread: the first metric of a process makes Airflow parse a large YAML file."""
    await anyio.to_thread.run_sync(_count, "hubs")


async def count_response(response: Any) -> None:
    """Count a response of Airbyte, as one of httpx's ``event_hooks``."""
    _count("requests")


def _count(name: str) -> None:
    if Stats is not None:
        Stats.incr(f"airbyte_events.{name}")


def _time(name: str, since: datetime | None) -> None:
    if Stats is not None and since is not None:
        Stats.timing(f"airbyte_events.{name}", max(timedelta(0), utcnow() - since))

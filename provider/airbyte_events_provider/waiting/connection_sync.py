"""Waiting for a connection's successful sync after a given time, however it was started."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import anyio

from airbyte_events._utils.times import parse_time, utcnow
from airbyte_events.errors import AirbyteError, HubClosed, SettingsError
from airbyte_events.events import EventFilter, JobEvent, JobStatus, Origin
from airbyte_events.hub.position import Bookmark, Position, completed_before
from airbyte_events.jobs import JobSystem
from airbyte_events.monitor.observation import event_of
from airbyte_events_provider.stats import count_completion
from airbyte_events_provider.waiting.result import (
    TIMEOUT,
    completion_line,
    describe,
    missing_records,
    outcome,
    without_job,
)
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub
from airbyte_events_provider.waiting.watch import Watch, follow

logger = logging.getLogger(__name__)

_LAST_POLL_SECONDS = 30.0
_SLACK = timedelta(seconds=1)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncCriteria:
    """The criteria of the job to wait for.

    :param connection_id: the Airbyte connection (UUID).
    :param after: the earliest time of completion, by Airbyte's clock.
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``.
    :param min_records: the minimum of moved records.
    """

    connection_id: str
    after: datetime
    job_type: str = "sync"
    min_records: int | None = None

    @property
    def wanted(self) -> EventFilter:
        return EventFilter(connection_ids=frozenset([self.connection_id]), job_types=frozenset([self.job_type]))

    def matches(self, event: JobEvent) -> bool:
        """Return whether this is such a job; log completions that fail or move too few records."""
        if not self.wanted.matches(event) or completed_before(event, self.after):
            return False
        if event.status is not JobStatus.SUCCEEDED:
            logger.warning("still waiting for a success: %s", describe(event))
            return False
        if (shortage := missing_records(outcome(event), self.min_records)) is not None:
            logger.warning("still waiting for another: %s", shortage)
            return False
        return True

    def __str__(self) -> str:
        return f"a successful {self.job_type} of connection {self.connection_id} that completed after {self.after}"


def parse_moment(value: object) -> datetime | None:
    """Parse a task's argument: a datetime, a date, or ISO 8601 text, by default in UTC.

    A date (also as text, ``{{ ds }}``) means its beginning.

    :return: None for None, empty text, and ``"None"``, which templates render None to.
    :raises ValueError: if it is not a time.
    """
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, str) and _DAY.fullmatch(value.strip()):
        value = f"{value.strip()}T00:00:00Z"
    return None if value in (None, "", "None") else parse_time(value)


async def find_sync(airbyte: JobSystem, criteria: SyncCriteria) -> JobEvent | None:
    """Return the first such job that has completed already; None if there is none."""
    async for page in airbyte.list_changed(
        since=criteria.after - _SLACK, connection_id=criteria.connection_id, job_types=[criteria.job_type]
    ):
        # Sorted by creation: as a connection has one job at a time, also by completion.
        for job in page.jobs:
            event = event_of("default", job, Origin.SUBMIT)
            if criteria.matches(event):
                return event
    return None


async def await_sync(
    key: HubKey, criteria: SyncCriteria, *, until: float | None, poll_interval: float, task_url: str | None = None
) -> dict[str, Any]:
    """Wait for the job by a listener's push, or by polls that all waiting tasks share.

    :param until: the deadline, in seconds since the epoch; None: no limit. Airbyte is polled once more then.
    :param task_url: the page of the task that waits: the listener links to it from the job.
    :return: see :func:`~airbyte_events_provider.waiting.result.conclude`; after the deadline with status ``timeout``.
    :raises SettingsError: if the Airflow connection of the Airbyte is missing or wrong.
    """
    event: JobEvent | None = None
    began = utcnow()
    with anyio.move_on_after(None if until is None else until - time.time()):
        event = await _first(Watch(key=key, wanted=criteria.wanted, poll_interval=poll_interval), criteria)
    message = f"The time-out passed without {criteria}."
    if event is None:
        try:
            with anyio.move_on_after(_LAST_POLL_SECONDS):
                async with shared_hub(key) as shared:
                    event = await find_sync(shared.airbyte, criteria)
        except (AirbyteError, HubClosed) as exc:
            message += f" Airbyte could not be polled once more: {exc}"
    if event is None:
        return without_job(TIMEOUT, message)
    logger.info("%s", completion_line(event))
    count_completion(event)
    # Another hub may open by now, or fail to: nothing depends on a link.
    with contextlib.suppress(HubClosed, SettingsError):
        async with shared_hub(key) as shared:
            shared.hub.report_receipt(event, began, task_url)
    return outcome(event)


async def _first(watch: Watch, criteria: SyncCriteria) -> JobEvent:
    position = Position(since=criteria.after, floor=criteria.after)
    items: AsyncGenerator[JobEvent | Bookmark, None]
    async with aclosing(follow(watch, position, forever=False)) as items:
        async for item in items:
            if isinstance(item, JobEvent) and criteria.matches(item):
                return item
    raise AssertionError("a watch has no end")

"""A connection's next or last successful sync after a given time, whoever started it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.times import parse_time
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.errors import AirbyteError, HubClosed
from airbyte_events.events import JobEvent, JobStatus, Origin
from airbyte_events.hub.subscription import Mark, Place, Wanted, ended_before
from airbyte_events.monitor.observation import event_of
from airbyte_events_provider.stats import count_completion
from airbyte_events_provider.waiting.result import TIMEOUT, arrival, describe, missing_records, outcome
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub
from airbyte_events_provider.waiting.watch import Watch, watch_once

logger = logging.getLogger(__name__)

_LAST_LOOK_SECONDS = 30.0
_SLACK = timedelta(seconds=1)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """Which job.

    :param connection_id: the Airbyte connection (UUID).
    :param after: it ended then or later, by Airbyte's clock.
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``.
    :param min_records: it moved at least so many records.
    """

    connection_id: str
    after: datetime
    job_type: str = "sync"
    min_records: int | None = None

    @property
    def wanted(self) -> Wanted:
        return Wanted(connection_ids=frozenset([self.connection_id]), job_types=frozenset([self.job_type]))

    def found_in(self, event: JobEvent) -> bool:
        """Whether this is it. One that is not, though it has ended in time, is logged."""
        if not self.wanted.matches(event) or ended_before(event, self.after):
            return False
        if event.status is not JobStatus.SUCCEEDED:
            logger.warning("waiting on for a success: %s", describe(event))
            return False
        if (shortage := missing_records(outcome(event), self.min_records)) is not None:
            logger.warning("waiting on for another: %s", shortage)
            return False
        return True

    def __str__(self) -> str:
        return f"a successful {self.job_type} of connection {self.connection_id} that ended after {self.after}"


def moment(value: object) -> datetime | None:
    """Read a time as tasks are given one: a datetime, or ISO 8601 text; in UTC where it does not say.

    A day alone (``{{ ds }}``, a ``date``) is its beginning.

    :return: None for None, for empty text and for what a template makes of a time that there is not.
    :raises ValueError: if it is no time.
    """
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, str) and _DAY.fullmatch(value.strip()):
        value = f"{value.strip()}T00:00:00Z"
    return None if value in (None, "", "None") else parse_time(value)


async def find_sync(airbyte: AirbyteClient, sought: Sought) -> JobEvent | None:
    """The first such job that has ended, if there is one already."""
    async for page in airbyte.find_jobs(
        connection_id=sought.connection_id, job_type=sought.job_type, updated_since=sought.after - _SLACK
    ):
        # By creation, which for one connection is the order of their ends, as it has one job at a time.
        for job in page.jobs:
            event = event_of("default", job, Origin.SUBMIT)
            if sought.found_in(event):
                return event
    return None


async def await_sync(key: HubKey, sought: Sought, *, until: float | None, poll_interval: float) -> dict[str, Any]:
    """Wait for the job, told by a listener or by shared looks.

    :param until: when to give up, in seconds since the epoch. Airbyte is asked once more before.
    :return: what the wait came to, as a trigger's event has it; see
        :func:`~airbyte_events_provider.waiting.result.conclude`. Past the time it is ``timeout``.
    :raises SettingsError: if the Airflow connection of the Airbyte is missing or wrong.
    """
    event: JobEvent | None = None
    with anyio.move_on_after(None if until is None else until - time.time()):
        event = await _first(Watch(key=key, wanted=sought.wanted, poll_interval=poll_interval), sought)
    said = f"There was not {sought} in time."
    if event is None:
        try:
            with anyio.move_on_after(_LAST_LOOK_SECONDS):
                async with shared_hub(key) as shared:
                    event = await find_sync(shared.airbyte, sought)
        except (AirbyteError, HubClosed) as exc:
            said += f" Airbyte gives no answer: {exc}"
    if event is None:
        return {"status": TIMEOUT, "message": said, "job_id": None, "job": None}
    logger.info("%s", arrival(event))
    count_completion(event)
    return outcome(event)


async def _first(watch: Watch, sought: Sought) -> JobEvent:
    place = Place(since=sought.after, floor=sought.after)
    failures = 0
    while True:
        try:
            items: AsyncGenerator[JobEvent | Mark, None]
            async with aclosing(watch_once(watch, place)) as items:
                async for item in items:
                    if isinstance(item, JobEvent) and sought.found_in(item):
                        return item
        except HubClosed as exc:
            failures += 1
            logger.debug("waiting for %s goes on with another hub: %s", sought, exc)
        await anyio.sleep(pause(failures, first=0.5, longest=15.0))

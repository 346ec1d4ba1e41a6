"""What the page of a job shows: requested from the listener, or from Airbyte where no listener knows the job."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import quote

import anyio
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airbyte_events._utils.json_values import instant, mapping
from airbyte_events._utils.times import utcnow
from airbyte_events.errors import AirbyteEventsError, FeedError, UnknownJob
from airbyte_events.events import JobEvent, JobRef, read_event
from airbyte_events.feed.client import FeedClient
from airbyte_events.monitor.observation import event_of
from airbyte_events_provider.connections.clients import open_airbyte, open_listener
from airbyte_events_provider.connections.read import aread_hub
from airbyte_events_provider.connections.settings import AirbyteSettings
from airbyte_events_provider.waiting.wait_start import JobReference

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 10.0
"""The maximum time for one page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTimes:
    """The state and the times of the task instance, by Airflow.

    :param scheduled_at: last; of a task that was deferred, when its trigger had fired.
    :param queued_at: last, for a worker.
    """

    state: str | None = None
    started_at: datetime | None = None
    scheduled_at: datetime | None = None
    queued_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def fired_at(self) -> datetime | None:
        """When the trigger fired; None if the task was not deferred, or ended without a worker."""
        # A task that resumes keeps the time at which it first started.
        return self.scheduled_at if _is_after(self.scheduled_at, self.started_at) else None

    @property
    def resumed_at(self) -> datetime | None:
        """When a task whose trigger has fired was queued for a worker."""
        return self.queued_at if _is_after(self.queued_at, self.fired_at) else None


def _is_after(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and other is not None and one > other


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as it is shown. None is unknown.

    :param reference: which job.
    :param read_at: when it was requested.
    :param source: who returned it.
    :param job: its state, with the counts so far if it is active; None if ``fault`` says why there is none.
    :param observed_at: when the listener published the completion.
    :param webhook_at: when the webhook arrived that announced it.
    """

    reference: JobReference
    read_at: datetime
    source: str = ""
    job: JobEvent | None = None
    observed_at: datetime | None = None
    webhook_at: datetime | None = None
    fault: str | None = None


async def read_job(reference: JobReference) -> JobView:
    """Return the job as it is now; a failure is part of what is returned."""
    view = JobView(reference=reference, read_at=utcnow())
    try:
        with anyio.fail_after(REQUEST_SECONDS):
            hub = await aread_hub(reference.airbyte_conn_id, reference.listener_conn_id)
            if hub.listener is not None:
                try:
                    async with open_listener(hub.listener) as feed:
                        return await _from_listener(view, feed, hub.airbyte.instance)
                except FeedError as exc:
                    logger.info("the listener does not return the job: job=%s reason=%s", reference.job_id, exc)
            return await _from_airbyte(view, hub.airbyte)
    except TimeoutError:
        return replace(view, fault=f"Neither the listener nor Airbyte responded within {REQUEST_SECONDS:g} s.")
    except (AirbyteEventsError, AirflowNotFoundException) as exc:
        return replace(view, fault=str(exc))


async def _from_listener(view: JobView, feed: FeedClient, instance: str) -> JobView:
    """:raises FeedError: if the listener does not respond, or does not know the job."""
    job_id = view.reference.job_id
    answer = await feed.request("GET", f"/v1/jobs/{quote(instance, safe='')}/{job_id}")
    job = read_event(answer.get("job"))
    if job is None or not view.reference.identity.fits(job):
        raise FeedError(f"{feed.url} has another job {job_id}")
    view = replace(view, source=f"the listener {feed.url}", job=job)
    if job.terminal:
        return replace(
            view,
            observed_at=job.observed_at,
            webhook_at=instant(mapping(answer.get("notification")).get("received_at")),
        )
    try:
        found = await feed.progress(JobRef(instance, job_id))
    except FeedError as exc:
        logger.debug("no progress: job=%s reason=%s", job_id, exc)
        return view
    return replace(view, job=replace(job, records=found[0].records, bytes=found[0].bytes)) if found else view


async def _from_airbyte(view: JobView, settings: AirbyteSettings) -> JobView:
    """:raises AirbyteError: if Airbyte does not return the job."""
    async with open_airbyte(settings, attempts=1) as airbyte:
        job = await airbyte.get_job(view.reference.job_id)
    if not view.reference.identity.fits(job):
        raise UnknownJob(f"job {job.job_id} of Airbyte is another one now")
    event = replace(event_of(settings.instance, job), records=job.records, bytes=job.bytes)
    return replace(view, source="Airbyte's API", job=event)

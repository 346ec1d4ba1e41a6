"""The wait of :class:`AirbyteConnectionSyncTrigger` for a job of its connection."""

from __future__ import annotations

from typing import Any

from airflow.triggers.base import TriggerEvent

from airbyte_events_provider.links.airflow import task_page
from airbyte_events_provider.triggers.connection import AirbyteConnectionSyncTrigger
from airbyte_events_provider.waiting.connection_sync import SyncCriteria, await_sync, parse_moment
from airbyte_events_provider.waiting.deferral import Deferral
from airbyte_events_provider.waiting.result import Payload, guarded
from airbyte_events_provider.waiting.shared_hub import HubKey


async def fire(trigger: AirbyteConnectionSyncTrigger) -> TriggerEvent:
    """Wait, then return the event to fire once Airflow can resume the task."""
    deferral = Deferral(trigger.task_instance, trigger.began)
    result = await guarded(_wait(trigger), f"a job of Airbyte connection {trigger.connection_id}", trigger.log)
    await deferral.over()
    return TriggerEvent(Payload(result))  # type: ignore[no-untyped-call]


async def _wait(trigger: AirbyteConnectionSyncTrigger) -> dict[str, Any]:
    after = parse_moment(trigger.after)
    if after is None:
        raise ValueError("after is empty: give it an ISO 8601 time")
    criteria = SyncCriteria(
        connection_id=trigger.connection_id, after=after, job_type=trigger.job_type, min_records=trigger.min_records
    )
    trigger.log.info("waiting for %s", criteria)
    return await await_sync(
        HubKey(trigger.conn_id, trigger.listener_conn_id),
        criteria,
        until=trigger.end_time,
        poll_interval=trigger.poll_interval,
        task_url=task_page(trigger.task_instance),
    )

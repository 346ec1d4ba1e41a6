"""What a trigger's event lacks when its task resumes in a worker: the job, the reason of its failure."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

from airbyte_events.events import read_event
from airbyte_events.monitor import observation
from airbyte_events_provider.waiting.result import outcome

if TYPE_CHECKING:
    from airbyte_events_provider.hooks.airbyte import AirbyteHook

logger = logging.getLogger(__name__)


def with_job(hook: AirbyteHook, event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the event with ``job``: the job's event data, None if the job has not completed.

    The official provider's trigger leaves it out, and its deferred tasks resume in this provider.
    The event of ``AirbyteSyncTrigger`` in ``apache-airflow-providers-airbyte`` 6.2.0 has ``status`` (``success``,
    ``error``, ``cancelled``, ``timeout``), ``message`` and ``job_id``. Its status is ``error`` also if a request
    failed, so a completed job's own result replaces it.
    """
    if "job" in event:
        return event
    try:
        result = hook.wait(event["job_id"], until=time.time())
    except AirflowException as exc:
        logger.warning("no values of Airbyte job %s: Airbyte can't be polled: %s", event["job_id"], exc)
        return {**event, "job": None}
    return result if result["job"] is not None else {**event, "job": None}


def with_reason(hook: AirbyteHook, event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the event of a failed job with the reason, if it has none and Airbyte reports one now.

    If many jobs fail at once, the triggerer leaves reasons out, as no task shall wait for those of others. Here, each
    task requests its own, at the pace at which workers start.
    """
    job = read_event(event["job"])
    if job is None or not observation.lacks_reason(job):
        return event
    try:
        failure = hook.find_failure(job.ref.job_id)
    except AirflowException as exc:
        logger.warning("no reason for the failure of Airbyte job %s: %s", job.ref.job_id, exc)
        return event
    return event if failure is None else {**event, **outcome(observation.with_reason(job, failure))}

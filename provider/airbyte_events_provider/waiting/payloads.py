"""Events of the official provider's trigger, whose deferred tasks resume in this provider."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

if TYPE_CHECKING:
    from airbyte_events_provider.hooks.airbyte import AirbyteHook

logger = logging.getLogger(__name__)


def with_job(hook: AirbyteHook, event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the event with ``job``: the job's event data, None if the job has not completed.

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

"""Events of the official provider's trigger, completed to those of ours: tasks that it deferred continue here."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

if TYPE_CHECKING:
    from airbyte_events_provider.hooks.airbyte import AirbyteHook

logger = logging.getLogger(__name__)


def with_values(hook: AirbyteHook, event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the event with ``job``, the job's event data.

    The event of ``AirbyteSyncTrigger`` in ``apache-airflow-providers-airbyte`` 6.2.0 has ``status`` (``success``,
    ``error``, ``cancelled``, ``timeout``), ``message`` and ``job_id``. Airbyte is asked once for the job: if it has
    completed, that counts, for theirs reports an error also where a request failed. Otherwise ``job`` is None.
    """
    if "job" in event:
        return event
    try:
        told = hook.wait(event["job_id"], until=time.time())
    except AirflowException as exc:
        logger.warning("Airbyte job %s: no values, as Airbyte can't be asked: %s", event["job_id"], exc)
        return {**event, "job": None}
    return told if told["job"] is not None else {**event, "job": None}

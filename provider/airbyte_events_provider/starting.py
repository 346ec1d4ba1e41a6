"""Tasks that begin in the triggerer: when they can, and how their job is started there."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import airflow
from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import StartTriggerArgs

from airbyte_events.airbyte import AirbyteClient, Job
from airbyte_events.errors import AirbyteError, AirbyteEventsError
from airbyte_events.submission import How, OnConflict, find_created, submit
from airbyte_events_provider.connections import SECTION

if TYPE_CHECKING:
    from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

TRIGGER = "airbyte_events_provider.triggers.airbyte.AirbyteStartTrigger"

_ONE_LOOK = (0.0,)


class NotStarted(AirbyteEventsError):
    """No job was started here; the message says why not."""


def without_workers() -> bool:
    """Whether this Airflow can begin and end tasks in the triggerer, from 3.3 on.

    Before, it does not render the templates of those that begin there, and of those that end there it stores the
    XComs as text (3.0.6).
    """
    return tuple(int(part) for part in airflow.__version__.split(".")[:2]) >= (3, 3)


def start_in_triggerer(operator: AirbyteTriggerSyncOperator) -> tuple[bool, StartTriggerArgs | None]:
    """Whether the operator's task can begin in the triggerer, and what Airflow has to know for that."""
    if not without_workers():
        return False, None
    limit = operator.execution_timeout
    kwargs = {
        "connection_id": operator.connection_id,
        "airbyte_conn_id": operator.airbyte_conn_id,
        "listener_conn_id": operator.listener_conn_id,
        "job_type": operator.job_type,
        "on_conflict": operator.on_conflict,
        "timeout": operator.timeout,
        "execution_timeout": None if limit is None else limit.total_seconds(),
        "poll_interval": max(operator.wait_seconds, conf.getfloat(SECTION, "poll_interval", fallback=10.0)),
        "cancel_on_kill": operator.cancel_on_kill,
        "end_from_trigger": operator.end_from_trigger and not operator.outlets,
        "min_records": operator.min_records,
    }
    return True, StartTriggerArgs(trigger_cls=TRIGGER, next_method="execute_complete", trigger_kwargs=kwargs)


async def start(
    airbyte: AirbyteClient, connection_id: str, job_type: str, on_conflict: OnConflict, *, since: datetime | None
) -> Job:
    """The job of the connection that was created since then, else a new one.

    :param since: when the task's try was prepared.
    :raises NotStarted: if it takes more than that.
    """
    try:
        job = None if since is None else await find_created(airbyte, connection_id, job_type, since, _ONE_LOOK)
        if job is not None:
            return job
        submission = await submit(airbyte, connection_id, job_type, on_conflict)
    except AirbyteError as exc:
        raise NotStarted(str(exc)) from exc
    if submission.how is How.IN_THE_WAY:
        raise NotStarted(f"job {submission.job.job_id} of the connection runs.")
    return submission.job

"""Tasks that begin in the triggerer: when they can, and how their job is started there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import airflow
from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import StartTriggerArgs

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.errors import AirbyteError, AirbyteEventsError, MaybeStarted
from airbyte_events.events import utcnow
from airbyte_events.submission import How, OnConflict, find_created, submit, take_snapshot
from airbyte_events_provider.connections import SECTION
from airbyte_events_provider.ledger import Entry, TriggerLedger

if TYPE_CHECKING:
    from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

TRIGGER = "airbyte_events_provider.triggers.airbyte.AirbyteStartTrigger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a task that begins in the triggerer wants of Airbyte.

    :param connection_id: the Airbyte connection (UUID).
    :param job_type: ``sync``, ``reset`` or ``clear``.
    :param on_conflict: what to do while another job of the connection runs.
    :param timeout: seconds that the task may wait; None for as long as it takes.
    """

    connection_id: str
    job_type: str
    on_conflict: OnConflict
    timeout: float | None


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


async def start(airbyte: AirbyteClient, ledger: TriggerLedger, wanted: Wanted) -> Entry:
    """Return the entry of the job that the task has in Airbyte, which is started unless it is there.

    What is asked for is written down first. So a trigger that begins again knows its own job from those of others, even
    if it was started, or has completed, while no triggerer ran.

    :raises NotStarted: if it takes more than that.
    """
    try:
        entry = await ledger.read()
        if entry is not None and (found := await _of_before(airbyte, entry)) is not None:
            await ledger.write(found)
            return found
        before = await take_snapshot(airbyte, wanted.connection_id, wanted.job_type)
        if entry is None:
            entry = Entry(
                url=airbyte.url,
                connection_id=wanted.connection_id,
                job_type=wanted.job_type,
                asked_at=utcnow(),
                after_id=before.newest_id,
                # The triggerer does not know it; the worker that reads it does.
                max_tries=0,
            )
            await ledger.write(entry)
        until = None if wanted.timeout is None else entry.asked_at.timestamp() + wanted.timeout
        submission = await submit(
            airbyte, wanted.connection_id, wanted.job_type, wanted.on_conflict, before=before, until=until
        )
    except MaybeStarted as exc:
        raise NotStarted(str(exc)) from exc
    except AirbyteError as exc:
        await _give_up(ledger)
        raise NotStarted(str(exc)) from exc
    if submission.how is How.IN_THE_WAY:
        await _give_up(ledger)
        raise NotStarted(f"job {submission.job.job_id} of the connection runs.")
    entry = replace(entry, job_id=submission.job.job_id, owned=submission.owned)
    await ledger.write(entry)
    return entry


async def _of_before(airbyte: AirbyteClient, entry: Entry) -> Entry | None:
    """Return the entry with the job that this task's trigger has started before it began again."""
    if entry.job_id is not None or entry.after_id is None:
        return entry
    job = await find_created(airbyte, entry.connection_id, entry.job_type, entry.after_id)
    return None if job is None else replace(entry, job_id=job.job_id)


async def _give_up(ledger: TriggerLedger) -> None:
    """Have the worker that goes on look for no job: none was started here."""
    if ledger.entry is not None and ledger.entry.job_id is None:
        await ledger.write(replace(ledger.entry, done=True))

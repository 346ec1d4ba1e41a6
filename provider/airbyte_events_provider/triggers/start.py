"""Tasks that begin in the triggerer: when they can, and how their job is started there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import airflow
from airflow.sdk import AssetAlias
from airflow.triggers.base import StartTriggerArgs
from jinja2 import TemplateError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import SandboxedEnvironment

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.airbyte.submission import How, OnConflict, find_created, submit, take_snapshot
from airbyte_events.errors import AirbyteError, AirbyteEventsError, MaybeStarted
from airbyte_events_provider.arguments import is_template
from airbyte_events_provider.config import poll_interval
from airbyte_events_provider.retry.task_state import Entry, TriggerLedger

if TYPE_CHECKING:
    from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

LONGEST = timedelta(days=365)
"""How long Airflow lets a trigger run that began its task. With it Airflow stores until when, which says when the task
began (``TaskInstance.defer_task`` in 3.3.2)."""

TRIGGER = "airbyte_events_provider.triggers.airbyte.AirbyteStartTrigger"

_RENDERED = frozenset(
    [
        *("data_interval_end", "data_interval_start", "dag_run", "ds", "ds_nodash", "logical_date", "macros", "params"),
        *("partition_key", "run_id", "task_instance_key_str", "ts", "ts_nodash", "ts_nodash_with_tz"),
    ]
)
"""The variables of templates that need no more than the DAG run. For the others the triggerer of Airflow 3.3.2 asks the
API server what its channel has no answer for (``ToTriggerRunner``): with ``ti.xcom_pull(…)`` in a template the task
stays deferred for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a task that begins in the triggerer wants of Airbyte.

    :param connection_id: the Airbyte connection (UUID).
    :param job_type: ``sync``, ``reset`` or ``clear``.
    :param on_conflict: what to do while another job of the connection runs.
    :param until: until when the task waits, in seconds since the epoch; None for as long as it takes.
    """

    connection_id: str
    job_type: str
    on_conflict: OnConflict
    until: float | None


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
    templates = (operator.connection_id, operator.airbyte_conn_id, operator.listener_conn_id)
    if not without_workers() or not all(map(renders_in_triggerer, templates)):
        return False, None
    if any(isinstance(inlet, AssetAlias) for inlet in operator.inlets):
        # For the context of its templates Airflow asks what these stand for, and that the triggerer's channel has not.
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
        "poll_interval": poll_interval(operator.wait_seconds),
        "cancel_on_kill": operator.cancel_on_kill,
        "end_from_trigger": operator.end_from_trigger and not operator.outlets,
        "min_records": operator.min_records,
    }
    args = StartTriggerArgs(trigger_cls=TRIGGER, next_method="execute_complete", trigger_kwargs=kwargs, timeout=LONGEST)
    return True, args


def renders_in_triggerer(value: object) -> bool:
    """Return whether the triggerer can render the value of a templated argument."""
    if not is_template(value):
        return True
    if not isinstance(value, str):
        return False
    environment = SandboxedEnvironment()
    try:
        template = environment.parse(value)
        # A DAG's own macros and filters are not there, as Airflow does not serialize them: they are unknown here, too.
        return find_undeclared_variables(template) <= _RENDERED
    except TemplateError:
        return False


def began_at(timeout_after: datetime | None, execution_timeout: float | None) -> float | None:
    """Return when a task began that began in the triggerer, in seconds since the epoch, by Airflow's clock.

    :param timeout_after: until when Airflow lets its trigger run; None where no triggerer runs it.
    :param execution_timeout: the task's, in seconds.
    """
    if timeout_after is None:
        return None
    longest = LONGEST.total_seconds()
    return timeout_after.timestamp() - min(longest, longest if execution_timeout is None else execution_timeout)


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
        submission = await submit(
            airbyte, wanted.connection_id, wanted.job_type, wanted.on_conflict, before=before, until=wanted.until
        )
    except MaybeStarted as exc:
        raise NotStarted(str(exc)) from exc
    except AirbyteError as exc:
        await _give_up(ledger)
        raise NotStarted(str(exc)) from exc
    if submission.how is How.IN_THE_WAY:
        await _give_up(ledger)
        raise NotStarted(f"job {submission.job.job_id} of the connection runs.")
    job = submission.job
    entry = replace(entry, job_id=job.job_id, started_at=job.started_at, owned=submission.owned)
    await ledger.write(entry)
    return entry


async def _of_before(airbyte: AirbyteClient, entry: Entry) -> Entry | None:
    """Return the entry with the job that this task's trigger has started before it began again."""
    if entry.job_id is not None or entry.after_id is None:
        return entry
    job = await find_created(airbyte, entry.connection_id, entry.job_type, entry.after_id)
    return None if job is None else replace(entry, job_id=job.job_id, started_at=job.started_at)


async def _give_up(ledger: TriggerLedger) -> None:
    """Have the worker that goes on look for no job: none was started here."""
    if ledger.entry is not None and ledger.entry.job_id is None:
        await ledger.write(replace(ledger.entry, done=True))

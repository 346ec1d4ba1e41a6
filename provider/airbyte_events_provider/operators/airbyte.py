"""The operator that runs an Airbyte sync."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseOperator,
    conf,
)

from airbyte_events._utils.times import parse_time
from airbyte_events.airbyte.submission import How, OnConflict, Submission
from airbyte_events.errors import MaybeStarted
from airbyte_events.events import JobStatus
from airbyte_events_provider.arguments import WrongArgument, check_count, check_flag, check_number, check_text, seconds
from airbyte_events_provider.config import poll_interval
from airbyte_events_provider.connections.read import read_hub
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.links.airbyte import AirbyteConnectionLink, AirbyteJobLink, ListenerJobLink, link_xcoms
from airbyte_events_provider.openlineage.extractor import lineage
from airbyte_events_provider.retry.resume import JobWanted, resume
from airbyte_events_provider.retry.task_state import Entry, Ledger
from airbyte_events_provider.triggers.airbyte import AirbyteSyncTrigger
from airbyte_events_provider.triggers.end import can_end_in_triggerer
from airbyte_events_provider.triggers.on_kill import ended_by_a_person
from airbyte_events_provider.triggers.start import start_in_triggerer
from airbyte_events_provider.waiting.payloads import with_values
from airbyte_events_provider.waiting.result import BEGIN, CANCELLED, SUCCESS, TIMEOUT, missing_records, push

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airbyte_events.airbyte import Job

JOB_TYPES = ("sync", "reset", "clear")

_SAID = {
    How.STARTED: "Airbyte job %s of connection %s was started",
    How.ATTACHED: "Airbyte job %s of connection %s runs already: waiting for that one",
    How.FOUND: "Airbyte job %s of connection %s was started, though Airbyte's answer was lost",
    How.RESUMED: "Airbyte job %s of connection %s is that of an earlier try: going on with it",
}


class AirbyteTriggerSyncOperator(BaseOperator):
    """Starts a sync in Airbyte and waits for its end: told by a listener where there is one, by polling otherwise.

    Three ways: in the worker (the default), in the triggerer (``deferrable=True``, which takes no worker slot), or by a
    later :class:`~airbyte_events_provider.sensors.airbyte.AirbyteJobSensor` (``asynchronous=True``).

    In each the task's result is the job id. One that has waited leaves more as XComs: ``status``, ``records``,
    ``bytes``, ``started_at``, ``finished_at`` (RFC 3339, UTC), ``duration_seconds``, and ``job``, which has these and
    the rest of what is known of the job.

    A task completes by its own job: a retry goes on with the job that an earlier try has started, whether that is
    active still or has succeeded meanwhile, and starts another only if it failed. A failed job fails the task with
    Airbyte's reason. A job that somebody cancelled in Airbyte fails it for good: a retry does not undo a person's
    decision. To clear the task starts a new job. A job that somebody else started is waited for, and never cancelled.

    :param connection_id: the Airbyte connection (UUID). Templated.
    :param airbyte_conn_id: the Airflow connection of the Airbyte. Templated.
    :param asynchronous: return the job id as soon as the job is started.
    :param deferrable: wait in the triggerer; by default as ``[operators] default_deferrable`` says.
    :param api_version: only ``v1`` exists.
    :param wait_seconds: between looks at Airbyte where no listener tells. Deferred tasks share their looks, which come
        no more often than ``[airbyte_events] poll_interval`` says.
    :param timeout: seconds to wait, None for as long as it takes. Then the task fails, and the job goes on.
    :param listener_conn_id: the Airflow connection of the listener; by default the one that the Airbyte's connection or
        Airflow's configuration names. An empty string is none. Templated.
    :param job_type: ``sync``, ``reset`` or ``clear``.
    :param on_conflict: what to do while another job of the connection runs: ``attach`` (wait for that one, as for the
        task's own; one of another type is as with ``wait``), ``wait`` (for its end, then start), ``fail`` or ``skip``.
    :param retry_cancelled: let a retry start the job again that a person has cancelled in Airbyte.
    :param cancel_on_kill: cancel the task's own job when a person fails or clears the task, or marks it as success, and
        when ``execution_timeout`` strikes in a worker. In the triggerer that needs Airflow 3.3. A worker that is shut
        down cancels nothing.
    :param cancel_on_timeout: cancel the task's own job when ``timeout`` is over.
    :param min_records: a success that moved fewer records fails the task: Airbyte can call a job successful that never
        ran.
    :param end_from_trigger: let the trigger end a task that succeeded, without a worker for it. Airflow then sends no
        e-mail, calls no ``on_success_callback`` in a worker, no listener, and updates no outlets: a task that has
        outlets goes on in a worker all the same, and so do all before Airflow 3.3, and where a plugin listens to tasks,
        as OpenLineage's does. Needs ``deferrable``.
    :param start_from_trigger: let the triggerer start the job, too, without a worker for it. A retry begins in a
        worker. Needs ``deferrable``, and Airflow 3.3; older versions, mapped tasks, and tasks whose templated arguments
        need more than the DAG run (an XComArg, ``ti``, ``var``, ``conn``, a macro of the DAG's), begin in a worker.
    :param execution_timeout: how long the task may take (a ``timedelta``). Then its own job is cancelled, and the task
        fails.
    """

    template_fields: Sequence[str] = ("connection_id", "airbyte_conn_id", "listener_conn_id")
    operator_extra_links = (AirbyteConnectionLink(), AirbyteJobLink(), ListenerJobLink())
    ui_color = "#6C51FD"

    def __init__(
        self,
        connection_id: str,
        airbyte_conn_id: str = "airbyte_default",
        asynchronous: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        api_version: str = "v1",
        wait_seconds: float = 3,
        timeout: float | None = 3600,
        *,
        listener_conn_id: str | None = None,
        job_type: str = "sync",
        on_conflict: str = OnConflict.ATTACH.value,
        retry_cancelled: bool = False,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = False,
        min_records: int | None = None,
        end_from_trigger: bool = False,
        start_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.connection_id = connection_id
        self.airbyte_conn_id = airbyte_conn_id
        self.asynchronous = asynchronous
        self.deferrable = deferrable
        self.api_version = api_version
        self.wait_seconds = wait_seconds
        self.timeout = timeout
        self.listener_conn_id = listener_conn_id
        self.job_type = job_type
        self.on_conflict = on_conflict
        self.retry_cancelled = retry_cancelled
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.min_records = min_records
        self.end_from_trigger = end_from_trigger
        self.job_id: int | None = None
        self._killed = False
        self._told: Mapping[str, Any] | None = None
        self._ledger: Ledger | None = None
        self._ti: Any = None
        self._asking: Entry | None = None
        self._owned = True
        self._check(start_from_trigger)
        # Decided here, for Airflow reads it from the operator when it parses the DAG.
        self.end_from_trigger = end_from_trigger and can_end_in_triggerer()
        self.start_from_trigger = start_from_trigger
        if start_from_trigger:
            # Both are set here, for Airflow reads them from the operator when it parses the DAG.
            self.start_from_trigger, self.start_trigger_args = start_in_triggerer(self)

    def _check(self, start_from_trigger: bool) -> None:
        """:raises WrongArgument: if the arguments can't be meant so."""
        for name in ("connection_id", "airbyte_conn_id"):
            check_text(name, getattr(self, name), templated=True)
        check_text("listener_conn_id", self.listener_conn_id, optional=True, templated=True)
        for name in (
            "asynchronous",
            "deferrable",
            "retry_cancelled",
            "cancel_on_kill",
            "cancel_on_timeout",
            "end_from_trigger",
        ):
            check_flag(name, getattr(self, name))
        check_flag("start_from_trigger", start_from_trigger)
        for name in ("api_version", "job_type", "on_conflict"):
            check_text(name, getattr(self, name))
        check_number("wait_seconds", self.wait_seconds)
        check_number("timeout", self.timeout, optional=True)
        check_count("min_records", self.min_records, optional=True)
        if self.job_type == "refresh":
            raise WrongArgument(
                "job_type='refresh': Airbyte's public API starts no refresh (it answers 422). Start it in Airbyte, and "
                "wait for it by AirbyteJobSensor; or use 'clear', then 'sync', which loads everything again, too."
            )
        _one_of("job_type", self.job_type, JOB_TYPES)
        _one_of("on_conflict", self.on_conflict, [each.value for each in OnConflict])
        waits = {
            "min_records": self.min_records is not None,
            "cancel_on_timeout": self.cancel_on_timeout,
            "end_from_trigger": self.end_from_trigger,
            "start_from_trigger": start_from_trigger,
        }
        given = [name for name, is_given in waits.items() if is_given]
        if self.asynchronous and given:
            raise WrongArgument(f"asynchronous=True does not wait for the job's end, so {given[0]} can't do anything")
        if not self.deferrable and (needing := [name for name in given if name.endswith("_from_trigger")]):
            raise WrongArgument(f"{needing[0]}=True needs deferrable=True")

    @cached_property
    def hook(self) -> AirbyteHook:
        """The hook, with the templates rendered."""
        return AirbyteHook(self.airbyte_conn_id, self.api_version, listener_conn_id=self.listener_conn_id)

    def execute(self, context: Context) -> int:
        """Start the job, or go on with that of an earlier try, and wait for its end unless told otherwise.

        :return: the job id.
        """
        return self._run(context, time.time())

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        began: float | None = None,
        try_number: int | None = None,
    ) -> int:
        """Continue after the trigger's event: ours, or that of the official provider.

        :param event: without one the task begins again, and resumes the job that it has.
        :param began: when the task began, in seconds since the epoch; handed over by tasks that were deferred by
            release 0.1.0, as is ``try_number``. By default the event says both.
        :return: the job id.
        """
        if self._is_of_another_try(context, event, try_number):
            return self._run(context, time.time())
        if event.get(BEGIN) or event["status"] == BEGIN:
            self.log.info("%s", event["message"])
            return self._run(context, event.get("began") or time.time())
        self.job_id, self._owned, self._ti = event["job_id"], event.get("owned", True), context.get("ti")
        began = event.get("began") or began or time.time()
        return self._finish(context, with_values(self.hook, event), began)

    def execute_after(
        self, context: Context, event: Any = None, began: float | None = None, try_number: int | None = None
    ) -> int:
        """Continue after the job that was in the way has completed; see :meth:`execute_complete`.

        :return: the job id.
        """
        if self._is_of_another_try(context, event, try_number):
            return self._run(context, time.time())
        self._check_turn(event)
        return self._run(context, event.get("began") or began or time.time(), resuming=False)

    def _is_of_another_try(self, context: Context, event: Any, try_number: int | None) -> bool:
        if not isinstance(event, Mapping):
            return True
        # Airflow 3.0 has a retry go on where the try before ended, with the event of that.
        return event.get("try_number", try_number) not in (None, _try_number(context))

    def _run(self, context: Context, began: float, *, resuming: bool = True) -> int:
        self._ti = context.get("ti")
        ledger = self._ledger = self._open_ledger(context)
        submission = (resume(self.hook, ledger, self._wanted) if resuming else None) or self._submit(ledger, began)
        while submission.how is How.IN_THE_WAY:
            self._wait_for_turn(context, submission.job, began)
            submission = self._submit(ledger, began)
        job = submission.job
        self._owned = submission.owned
        self.job_id = job.job_id
        if self._killed:
            # While the job was asked for.
            self._end_own_job(job.job_id)
            raise AirflowException(f"The task was ended from outside while Airbyte job {job.job_id} was started.")
        self.log.info(_SAID[submission.how], job.job_id, self.connection_id)
        self._leave_links(context, job)
        if self.asynchronous:
            return job.job_id
        if self.deferrable and not job.status.terminal:
            self._defer(context, submission, began)
        told = self.hook.wait(
            job.job_id,
            connection_id=job.connection_id,
            started_at=job.started_at,
            until=self._until(began),
            execution_deadline=self._until(began) if self.cancel_on_timeout else None,
            poll_interval=self.wait_seconds,
        )
        return self._finish(context, told, began)

    def _open_ledger(self, context: Context) -> Ledger:
        return Ledger(context, retries=self.retries or 0, begun_by_trigger=self.start_from_trigger)

    @property
    def _wanted(self) -> JobWanted:
        return JobWanted(
            connection_id=self.connection_id,
            job_type=self.job_type,
            retries=self.retries or 0,
            retry_cancelled=self.retry_cancelled,
            cancel_on_kill=self.cancel_on_kill,
        )

    def _submit(self, ledger: Ledger, began: float) -> Submission:
        before = self.hook.take_snapshot(self.connection_id, self.job_type)
        entry = self._asking = self._wanted.entry(self.hook, ledger, before.newest_id)
        ledger.write(entry)
        try:
            submission = self.hook.submit(
                self.connection_id,
                self.job_type,
                OnConflict(self.on_conflict),
                before=before,
                until=self._until(began),
            )
        except AirflowException as exc:
            if not isinstance(exc.__cause__, MaybeStarted):
                self._asking = None
                ledger.forget()
            raise
        self._asking = None
        if submission.how is How.IN_THE_WAY:
            ledger.forget()
        else:
            adopted = submission.how is How.ATTACHED and ledger.just_cleared
            job, owned = submission.job, submission.owned
            ledger.write(replace(entry, job_id=job.job_id, started_at=job.started_at, owned=owned, adopted=adopted))
        return submission

    def _wait_for_turn(self, context: Context, other: Job, began: float) -> None:
        """Do as ``on_conflict`` says about the job that is in the way."""
        kind = other.job_type or "of unknown type"
        what = f"Airbyte job {other.job_id} ({kind}) of connection {self.connection_id} runs"
        if self.on_conflict == OnConflict.FAIL.value:
            raise AirflowException(f"{what}, and on_conflict='fail': nothing was started.")
        if self.on_conflict == OnConflict.SKIP.value:
            raise AirflowSkipException(f"{what}, and on_conflict='skip': nothing was started.")
        self.log.info("%s: waiting for its end, to start a %s then", what, self.job_type)
        if self.deferrable:
            self.defer(
                trigger=self._trigger(context, other, began, owned=False),
                method_name="execute_after",
            )
        self._check_turn(
            self.hook.wait(
                other.job_id,
                connection_id=other.connection_id,
                started_at=other.started_at,
                until=self._until(began),
                poll_interval=self.wait_seconds,
            )
        )

    def _check_turn(self, event: Mapping[str, Any]) -> None:
        if event["job"] is None:
            raise AirflowException(f"{event['message']} It was in the way, so nothing was started.")
        self.log.info("%s Now it is this task's turn.", event["message"])

    def _leave_links(self, context: Context, job: Job) -> None:
        if (ti := context.get("ti")) is None:
            return
        hub = read_hub(self.airbyte_conn_id, self.listener_conn_id)
        workspace_id = self.hook.workspace_of(self.connection_id)
        links = link_xcoms(
            hub.airbyte, hub.listener, connection_id=self.connection_id, job_id=job.job_id, workspace_id=workspace_id
        )
        for key, url in links.items():
            ti.xcom_push(key=key, value=url)

    def _until(self, began: float) -> float | None:
        return None if self.timeout is None else began + self.timeout

    def _defer(self, context: Context, submission: Submission, began: float) -> None:
        ends = self.end_from_trigger and not self.outlets
        if self.end_from_trigger and self.outlets:
            self.log.info("The task has outlets, which no trigger updates: it will end in a worker")
        self.defer(
            trigger=self._trigger(context, submission.job, began, owned=submission.owned, end_from_trigger=ends),
            method_name="execute_complete",
        )

    def _trigger(
        self, context: Context, job: Job, began: float, *, owned: bool, end_from_trigger: bool = False
    ) -> AirbyteSyncTrigger:
        until = self._until(began)
        limits = [None if self.execution_timeout is None else began + self.execution_timeout.total_seconds()]
        limits += [until] if self.cancel_on_timeout else []
        # Airflow's own time-out of a deferral would not ask for the job's status before it strikes.
        return AirbyteSyncTrigger(
            job.job_id,
            self.airbyte_conn_id,
            end_time=until,
            poll_interval=poll_interval(self.wait_seconds),
            execution_deadline=min((limit for limit in limits if limit is not None), default=None),
            listener_conn_id=self.listener_conn_id,
            connection_id=job.connection_id,
            started_at=seconds(job.started_at),
            cancel_on_kill=self.cancel_on_kill,
            end_from_trigger=end_from_trigger,
            min_records=self.min_records,
            owned=owned,
            # Not as arguments of the method that continues: that of the official provider takes none, nor does
            # `airflow dags test` hand them over.
            began=began,
            try_number=_try_number(context),
        )

    def _finish(self, context: Context, told: Mapping[str, Any], began: float) -> int:
        self._told = told
        job_id: int = told["job_id"]
        status, message = told["status"], told["message"]
        ledger = self._open_ledger(context)
        if status == SUCCESS:
            if (shortage := missing_records(told, self.min_records)) is not None:
                self._give_up(ledger)
                raise AirflowException(shortage)
            self.log.info("%s", message)
            push(context, told)
            return job_id
        if status == TIMEOUT:
            return self._cancel_overdue(context, told, began)
        if status == CANCELLED:
            return self._heed_cancellation(context, told, began)
        self.log.error("%s", message)
        raise AirflowException(message)

    def _heed_cancellation(self, context: Context, told: Mapping[str, Any], began: float) -> int:
        job_id, message = told["job_id"], told["message"]
        ledger = self._open_ledger(context)
        if self._killed:
            self._give_up(ledger)
            raise AirflowException(f"Airbyte job {job_id} was cancelled, since its task was ended from outside.")
        entry = ledger.read()
        if (
            entry is not None
            and entry.adopted
            and ledger.cleared_away(parse_time((told["job"] or {}).get("finished_at")), self.hook.clock_ahead())
        ):
            self.log.info("Airbyte job %s was cancelled because the task was cleared: starting another", job_id)
            return self._run(context, began, resuming=False)
        self.log.error("%s", message)
        if not self._owned:
            raise AirflowException(f"{message} It was not this task's own: a retry starts another.")
        if _never_ran(told["job"]):
            self._give_up(ledger)
            raise AirflowException(f"{message} It never left Airbyte's queue: Airbyte itself cancels such jobs.")
        if self.retry_cancelled:
            raise AirflowException(message)
        raise AirflowFailException(
            f"{message} A retry would undo that decision, so there is none: clear the task to sync again."
        )

    def _cancel_overdue(self, context: Context, told: Mapping[str, Any], began: float) -> int:
        job_id, message = told["job_id"], told["message"]
        self.log.error("%s", message)
        if not self._owned:
            raise AirflowException(f"{message} The job is not this task's own, so it goes on.")
        self._give_up(self._open_ledger(context))
        try:
            job = self.hook.cancel_job(job_id)
        except AirflowException as exc:
            raise AirflowException(f"{message} The job could not be cancelled: {exc}") from exc
        if job.status is JobStatus.SUCCEEDED:
            self.log.warning("Airbyte job %s has succeeded after all, before it could be cancelled", job_id)
            told = self.hook.wait(job_id, connection_id=job.connection_id, started_at=job.started_at)
            return self._finish(context, told, began)
        raise AirflowException(f"{message} The job is {job.status.value} now.")

    def _give_up(self, ledger: Ledger) -> None:
        """Have a retry start another job."""
        if (entry := ledger.read()) is not None:
            ledger.write(replace(entry, done=True))

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What OpenLineage is told, where Airflow's provider for it is installed, whether the task succeeded or not."""
        return lineage(self.hook, self.connection_id, self._told)

    def on_kill(self) -> None:
        """Cancel the task's own job: a person has failed, cleared or marked the task, or ``execution_timeout`` is over.

        Airflow calls this for every SIGTERM, also of a worker that is shut down, or that the scheduler has given up:
        then the job goes on, for the next try. If Airflow does not say why, it goes on, too.
        """
        overdue = isinstance(sys.exc_info()[1], AirflowTaskTimeout)
        if not self.cancel_on_kill:
            return
        if not overdue and not ended_by_a_person(self._ti):
            self.log.info("The worker is told to stop. That is no person's decision: the Airbyte job goes on.")
            return
        self._killed = True
        if self.job_id is not None:
            self._end_own_job(self.job_id)
        elif overdue and self._asking is not None:
            self._end_what_was_asked_for(self._asking)

    def _end_what_was_asked_for(self, entry: Entry) -> None:
        """Cancel a job whose creation was cut off."""
        with contextlib.suppress(AirflowException):
            job = self.hook.find_created(entry.connection_id, entry.job_type, entry.after_id or 0)
            if job is not None:
                self._end_own_job(job.job_id)

    def _end_own_job(self, job_id: int) -> None:
        if not self._owned:
            self.log.info("Airbyte job %s is not this task's own, so it goes on", job_id)
            return
        try:
            job = self.hook.cancel_job(job_id)
        except AirflowException as exc:
            self.log.warning("Airbyte job %s could not be cancelled: %s", job_id, exc)
        else:
            self.log.info("The task was ended from outside: Airbyte job %s is %s", job_id, job.status.value)
        # After that, for it may fail: a task that was cleared is no longer this one's.
        if self._ledger is not None:
            with contextlib.suppress(AirflowException):
                self._give_up(self._ledger)


def _never_ran(job: Mapping[str, Any] | None) -> bool:
    """Return whether a cancelled job was last seen in the queue of a capacity plan, and moved nothing.

    Airbyte cancels such a job itself, at the connection's next scheduled run or after 8 hours.
    """
    job = job or {}
    return job.get("previous_status") == JobStatus.QUEUED.value and not job.get("records") and not job.get("bytes")


def _try_number(context: Context) -> int | None:
    number: int | None = getattr(context.get("ti"), "try_number", None)
    return number


def _one_of(name: str, value: object, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise WrongArgument(f"{name}={value!r} is none of {', '.join(allowed)}")

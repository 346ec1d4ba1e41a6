"""The operator that runs an Airbyte sync.

:meth:`AirbyteTriggerSyncOperator.execute` starts the job, or resumes that of an earlier try
(:mod:`airbyte_events_provider.retry.worker_job`). Then it waits with the hook, or defers with a trigger, which waits
with a shared hub (:mod:`airbyte_events_provider.waiting.shared_hub`). The trigger's event resumes the task in
:meth:`execute_complete` with the result (:mod:`airbyte_events_provider.operators.completion`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseOperator,
    conf,
)

from airbyte_events.airbyte.submission import How, OnConflict
from airbyte_events.errors import Conflict
from airbyte_events.events import Identity
from airbyte_events_provider.arguments import WrongArgument, check_arguments, check_choice, check_named
from airbyte_events_provider.config import poll_interval
from airbyte_events_provider.hooks.airbyte import AirbyteHook
from airbyte_events_provider.links.airbyte import AirbyteConnectionLink, AirbyteJobLink, ListenerJobLink
from airbyte_events_provider.links.airflow import task_page
from airbyte_events_provider.openlineage.extractor import lineage
from airbyte_events_provider.operators.completion import complete
from airbyte_events_provider.operators.start_args import can_end_in_triggerer, start_args
from airbyte_events_provider.retry.record import JobRequest
from airbyte_events_provider.retry.refresh_arguments import check_refresh, parse_refresh
from airbyte_events_provider.retry.task_state import TaskState
from airbyte_events_provider.retry.worker_job import WorkerJob
from airbyte_events_provider.triggers.airbyte import AirbyteSyncTrigger
from airbyte_events_provider.triggers.base import LATER_ARGUMENTS
from airbyte_events_provider.triggers.on_kill import ended_by_a_person
from airbyte_events_provider.waiting.payloads import with_job, with_reason
from airbyte_events_provider.waiting.progress import ON_STALL, WARN
from airbyte_events_provider.waiting.result import BEGIN, push
from airbyte_events_provider.waiting.wait_start import wait_start

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airbyte_events.jobs import Job

_OF_START_TRIGGER = (
    *("connection_id", "airbyte_conn_id", "listener_conn_id", "job_type", "on_conflict", "timeout", "cancel_on_kill"),
    *("min_records", "stalled_after", "on_stall"),
)
"""The arguments that :class:`AirbyteStartTrigger` takes as the operator has them."""

JOB_TYPES = ("sync", "reset", "clear", "refresh")

_STARTED = {
    How.STARTED: "Airbyte job started: job=%s connection=%s",
    How.ATTACHED: "waiting for the Airbyte job that runs already: job=%s connection=%s",
    How.FOUND: "Airbyte job started, though Airbyte's response was lost: job=%s connection=%s",
    How.RESUMED: "resuming the Airbyte job of an earlier try: job=%s connection=%s",
}


class AirbyteTriggerSyncOperator(BaseOperator):
    """Start a sync in Airbyte and wait until it completes, by a listener's push or by polls.

    It waits in the worker (the default), in the triggerer (``deferrable=True``, which takes no worker slot), or not at
    all (``asynchronous=True``), for a later :class:`~airbyte_events_provider.sensors.airbyte.AirbyteJobSensor`.

    The task returns the job id. If it has waited, it pushes more XComs: ``status``, ``records``, ``bytes``,
    ``started_at``, ``finished_at`` (RFC 3339, UTC), ``duration_seconds``, and ``job`` with the job's event data.

    A retry resumes the job of an earlier try if that is active or has succeeded; if it failed, the retry starts another
    one. A failed job fails the task with Airbyte's reason. A job that a person cancelled in Airbyte fails the task
    without a retry. Clearing the task starts a new job. Without ``on_conflict="cancel"``, the task never
    cancels a job that it did not start.

    :param connection_id: the Airbyte connection (UUID), or give its name by ``connection_name``. Templated.
    :param airbyte_conn_id: the Airflow connection of the Airbyte. Templated.
    :param asynchronous: return the job id once the job is started.
    :param deferrable: wait in the triggerer; by default as ``[operators] default_deferrable`` says.
    :param api_version: only ``v1`` exists.
    :param wait_seconds: seconds between polls of Airbyte without a listener. Deferred tasks share their polls, which
        are at least ``[airbyte_events] poll_interval`` apart.
    :param timeout: seconds to wait for the job; None: no limit. After that the task fails, and the job continues.
    :param listener_conn_id: the Airflow connection of the listener; None: that of the Airbyte's connection or Airflow's
        configuration. An empty string: none. Templated.
    :param connection_name: the name of the Airbyte connection, instead of ``connection_id``. The task asks Airbyte for
        its id when it runs; a retry keeps the id. Templated.
    :param workspace_id: the workspace (UUID) of the connection with this name. Templated.
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``. A refresh needs Airbyte's internal API (Airbyte
        0.63.8 or newer): where that refuses it, the task fails without a retry.
    :param refresh_mode: of a refresh: ``merge`` (the default: keep the previous records) or ``truncate`` (delete them
        once the refresh has succeeded).
    :param streams: the streams of a refresh, by name, or by ``NAMESPACE.NAME`` where several have the name; all by
        default. Templated.
    :param on_conflict: what to do while another job of the connection runs: ``attach`` (wait for that job instead; if
        its type differs or it is a refresh, as with ``wait``), ``wait`` (until it completes, then start), ``cancel``
        (cancel it, also if another client started it, then start), ``fail`` or ``skip``.
    :param retry_cancelled: let a retry start a job again that a person cancelled in Airbyte.
    :param cancel_on_kill: cancel the task's own job when a person fails or clears the task or marks it as success, and
        after ``execution_timeout`` in a worker. In the triggerer this needs Airflow 3.3. The shutdown of a worker
        cancels nothing.
    :param cancel_on_timeout: cancel the task's own job after ``timeout``.
    :param min_records: fail the task if the job succeeded but moved fewer records: Airbyte can report success for a job
        that never ran.
    :param stalled_after: seconds for which the job may run without moving a record or byte; None: any time. Airbyte
        commits in steps that can be minutes apart.
    :param on_stall: what to do after that: ``warn`` (log it), ``fail`` (fail the task; the job continues, and a retry
        waits for it again) or ``cancel`` (cancel the task's own job, and fail the task). Needs ``stalled_after``.
    :param end_from_trigger: let the trigger end a task that succeeded, without a worker. Airflow then sends no e-mail,
        calls no ``on_success_callback`` in a worker and no listener, and updates no outlets. Tasks with outlets still
        end in a worker, as do all tasks before Airflow 3.3, and all where a plugin listens to tasks, as OpenLineage's
        does. Needs ``deferrable``.
    :param start_from_trigger: let the triggerer also start the job, without a worker. Needs ``deferrable`` and Airflow
        3.3. Retries, mapped tasks, and tasks whose templated arguments need more than the DAG run (an XComArg, ``ti``,
        ``var``, ``conn``, a macro of the DAG's) still begin in a worker.
    :param execution_timeout: the maximum duration of the task (a ``timedelta``). After that the task fails, and its own
        job is cancelled.
    :raises WrongArgument: if an argument has the wrong type, or no effect together with another.
    """

    template_fields: Sequence[str] = (
        "connection_id",
        "connection_name",
        "workspace_id",
        "streams",
        "airbyte_conn_id",
        "listener_conn_id",
    )
    operator_extra_links = (AirbyteConnectionLink(), AirbyteJobLink(), ListenerJobLink())
    ui_color = "#6C51FD"

    def __init__(
        self,
        connection_id: str | None = None,
        airbyte_conn_id: str = "airbyte_default",
        asynchronous: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        api_version: str = "v1",
        wait_seconds: float = 3,
        timeout: float | None = 3600,
        *,
        listener_conn_id: str | None = None,
        connection_name: str | None = None,
        workspace_id: str | None = None,
        job_type: str = "sync",
        refresh_mode: str | None = None,
        streams: Sequence[str] | None = None,
        on_conflict: str = OnConflict.ATTACH.value,
        retry_cancelled: bool = False,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = False,
        min_records: int | None = None,
        stalled_after: float | None = None,
        on_stall: str = WARN,
        end_from_trigger: bool = False,
        start_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_arguments(AirbyteTriggerSyncOperator, locals())
        check_named(connection_id, connection_name, workspace_id)
        self.connection_id = connection_id
        self.connection_name = connection_name
        self.workspace_id = workspace_id
        self.airbyte_conn_id = airbyte_conn_id
        self.asynchronous = asynchronous
        self.deferrable = deferrable
        self.api_version = api_version
        self.wait_seconds = wait_seconds
        self.timeout = timeout
        self.listener_conn_id = listener_conn_id
        self.job_type = job_type
        self.refresh_mode = refresh_mode
        self.streams = streams
        self.on_conflict = on_conflict
        self.retry_cancelled = retry_cancelled
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.min_records = min_records
        self.stalled_after = stalled_after
        self.on_stall = on_stall
        self._check_combinations(end_from_trigger, start_from_trigger)
        # Airflow reads these three from the operator when it parses the DAG.
        self.end_from_trigger = end_from_trigger and can_end_in_triggerer()
        self.start_from_trigger = start_from_trigger
        if start_from_trigger:
            templated = [connection_id, connection_name, workspace_id, airbyte_conn_id, listener_conn_id]
            templated += [streams] if isinstance(streams, str) or not isinstance(streams, Sequence) else streams
            self.start_trigger_args = start_args(self._start_arguments(), templated, self.inlets)
            self.start_from_trigger = self.start_trigger_args is not None
        self.job_id: int | None = None
        self._killed = False
        self._result: Mapping[str, Any] | None = None
        self._task_job: WorkerJob | None = None
        self._ti: Any = None

    def _check_combinations(self, end_from_trigger: bool, start_from_trigger: bool) -> None:
        check_choice("job_type", self.job_type, JOB_TYPES)
        check_refresh(self.job_type, self.refresh_mode, self.streams)
        check_choice("on_conflict", self.on_conflict, [each.value for each in OnConflict])
        from_trigger = {"end_from_trigger": end_from_trigger, "start_from_trigger": start_from_trigger}
        check_choice("on_stall", self.on_stall, ON_STALL)
        if self.stalled_after == 0:
            raise WrongArgument("stalled_after=0 is no time without progress: write seconds, such as 1800, or None")
        if self.on_stall != WARN and self.stalled_after is None:
            raise WrongArgument(f"on_stall={self.on_stall!r} needs stalled_after: write seconds, such as 1800")
        waiting = {
            "min_records": self.min_records is not None,
            "cancel_on_timeout": self.cancel_on_timeout,
            "stalled_after": self.stalled_after is not None,
        }
        for name, given in (waiting | from_trigger).items():
            if given and self.asynchronous:
                raise WrongArgument(f"{name} has no effect with asynchronous=True, which does not wait for the job")
            if given and name in from_trigger and not self.deferrable:
                raise WrongArgument(f"{name}=True needs deferrable=True")

    def _start_arguments(self) -> dict[str, Any]:
        limit = self.execution_timeout
        # Triggers of earlier versions know none of the last ones.
        given = {name: getattr(self, name) for name in (*_OF_START_TRIGGER, *LATER_ARGUMENTS)}
        return {name: value for name, value in given.items() if value is not None or name in _OF_START_TRIGGER} | {
            "execution_timeout": None if limit is None else limit.total_seconds(),
            "poll_interval": poll_interval(self.wait_seconds),
            "end_from_trigger": self.end_from_trigger and not self.outlets,
        }

    @cached_property
    def hook(self) -> AirbyteHook:
        return AirbyteHook(self.airbyte_conn_id, self.api_version, listener_conn_id=self.listener_conn_id)

    def execute(self, context: Context) -> int:
        """Start the job, or resume that of an earlier try, wait until it completes, and return its id."""
        return self._run(context, time.time())

    def execute_complete(
        self, context: Context, event: Any = None, began: float | None = None, try_number: int | None = None
    ) -> int:
        """Resume after the event of a trigger, ours or the official provider's.

        :param event: without one, the task begins again, and resumes its job.
        :param began: when the task began, in seconds since the epoch. Tasks that release 0.1.0 deferred pass this and
            ``try_number``; since then, the event contains both.
        :return: the job id.
        """
        if self._is_of_another_try(context, event, try_number):
            return self._run(context, time.time())
        if event.get(BEGIN) or event["status"] == BEGIN:
            self.log.info("%s", event["message"])
            return self._run(context, event.get("began") or time.time())
        self.job_id = event["job_id"]
        self._open_job(context, event["job_id"], event.get("owned", True), event.get("connection_id"))
        result = with_reason(self.hook, with_job(self.hook, event))
        return self._complete(context, result, event.get("began") or began or time.time())

    def execute_after(
        self, context: Context, event: Any = None, began: float | None = None, try_number: int | None = None
    ) -> int:
        """Resume after another job of the connection has completed; see :meth:`execute_complete`."""
        if self._is_of_another_try(context, event, try_number):
            return self._run(context, time.time())
        self._check_turn(event)
        self.connection_id = self.connection_id or event.get("connection_id")
        return self._run(context, event.get("began") or began or time.time(), resuming=False)

    def _is_of_another_try(self, context: Context, event: Any, try_number: int | None) -> bool:
        if not isinstance(event, Mapping):
            return True
        # A retry in Airflow 3.0 resumes with the event of the previous try.
        return event.get("try_number", try_number) not in (None, _try_number(context))

    def _open_job(
        self, context: Context, job_id: int | None = None, owned: bool = True, connection_id: str | None = None
    ) -> WorkerJob:
        self._ti = context.get("ti")
        state = TaskState(context, retries=self.retries or 0, begun_by_trigger=self.start_from_trigger)
        request = JobRequest(
            connection_id=self._resolved(state, connection_id),
            connection_name=self.connection_name,
            workspace_id=self.workspace_id,
            job_type=self.job_type,
            on_conflict=OnConflict(self.on_conflict),
            retry_cancelled=self.retry_cancelled,
            cancel_on_kill=self.cancel_on_kill,
            min_records=self.min_records,
            refresh=parse_refresh(self.job_type, self.refresh_mode, self.streams),
        )
        task_job = self._task_job = WorkerJob(self.hook, state, request, job_id, owned)
        return task_job

    def _resolved(self, state: TaskState, deferred_with: str | None) -> str:
        """Return the connection's id, and keep it.

        :param deferred_with: the id with which the task was deferred.
        """
        if self.connection_id is None or (self.connection_name is not None and not self.connection_id):
            name, workspace_id = self.connection_name or "", self.workspace_id or None
            self.connection_id = (
                deferred_with
                or state.connection_of(name, workspace_id, self.hook.settings.url)
                or self.hook.find_connection(name, workspace_id)
            )
        return self.connection_id

    def _run(self, context: Context, began: float, *, resuming: bool = True) -> int:
        task_job = self._open_job(context)
        submission = task_job.start(self._until(began), resuming=resuming)
        while submission.how is How.BLOCKED:
            self._wait_for_turn(context, submission.job, began)
            submission = task_job.start(self._until(began), resuming=False)
        job = submission.job
        self.job_id = job.job_id
        if self._killed:
            task_job.cancel(job.job_id)
            raise AirflowException(f"The task was killed while it started Airbyte job {job.job_id}.")
        self.log.info(_STARTED[submission.how], job.job_id, self.connection_id)
        begins = wait_start(
            self.hook,
            job.job_id,
            Identity(task_job.request.connection_id, job.started_at),
            poll_interval=poll_interval(self.wait_seconds) if self.deferrable else self.wait_seconds,
            usual_seconds=task_job.usual_seconds,
        )
        begins.push(self._ti)
        if self.asynchronous:
            return job.job_id
        if not job.status.terminal:
            begins.log()
        if self.deferrable and not job.status.terminal:
            self._defer(context, job, began, owned=submission.owned)
        result = self.hook.wait_for(
            job,
            until=self._until(began),
            execution_deadline=self._until(began) if self.cancel_on_timeout else None,
            poll_interval=self.wait_seconds,
            stalled_after=self.stalled_after,
            on_stall=self.on_stall,
            task_url=task_page(self._ti),
        )
        return self._complete(context, result, began)

    def _complete(self, context: Context, result: Mapping[str, Any], began: float) -> int:
        assert self._task_job is not None  # noqa: S101 -- opened by _run or execute_complete
        self._result = result
        success = complete(self._task_job, result, killed=self._killed)
        if success is None:
            return self._run(context, began, resuming=False)
        self._result = success
        self.log.info("%s detected_by=%s", success["message"], (success["job"] or {}).get("origin"))
        push(context, success)
        job_id: int = success["job_id"]
        return job_id

    def _wait_for_turn(self, context: Context, other: Job, began: float) -> None:
        kind = other.job_type or "of unknown type"
        what = f"Airbyte job {other.job_id} ({kind}) of connection {self.connection_id} runs"
        if self.on_conflict == OnConflict.FAIL.value:
            raise AirflowException(f"{what}, and on_conflict='fail': nothing was started.")
        if self.on_conflict == OnConflict.SKIP.value:
            raise AirflowSkipException(f"{what}, and on_conflict='skip': nothing was started.")
        if self.on_conflict == OnConflict.CANCEL.value and self._cancel_other(other, what):
            return
        self.log.info("%s: waiting until it completes, to start a %s then", what, self.job_type)
        if self.deferrable:
            self._defer(context, other, began, owned=False, method_name="execute_after")
        self._check_turn(self.hook.wait_for(other, until=self._until(began), poll_interval=self.wait_seconds))

    def _cancel_other(self, other: Job, what: str) -> bool:
        """Cancel the job of another client; return whether it has completed."""
        self.log.warning("%s, and on_conflict='cancel': cancelling it, to start a %s then", what, self.job_type)
        try:
            return self.hook.cancel_job(other.job_id).status.terminal
        except AirflowException as exc:
            if isinstance(exc.__cause__, Conflict):
                # It has completed in between.
                return False
            raise

    def _check_turn(self, event: Mapping[str, Any]) -> None:
        if event["job"] is None:
            raise AirflowException(f"{event['message']} It was in the way, so nothing was started.")
        self.log.info("%s Now this task starts its own job.", event["message"])

    def _until(self, began: float) -> float | None:
        return None if self.timeout is None else began + self.timeout

    def _defer(
        self, context: Context, job: Job, began: float, *, owned: bool, method_name: str = "execute_complete"
    ) -> None:
        ending = self.end_from_trigger and method_name == "execute_complete"
        if ending and self.outlets:
            self.log.info("the task will complete in a worker: it has outlets, which a trigger can't update")
        until = self._until(began)
        limits = [None if self.execution_timeout is None else began + self.execution_timeout.total_seconds()]
        limits += [until] if self.cancel_on_timeout else []
        # Without Airflow's timeout of the deferral, after which the job's status would not be polled once more.
        trigger = AirbyteSyncTrigger.for_job(
            job,
            self.airbyte_conn_id,
            end_time=until,
            poll_interval=poll_interval(self.wait_seconds),
            execution_deadline=min((limit for limit in limits if limit is not None), default=None),
            listener_conn_id=self.listener_conn_id,
            cancel_on_kill=self.cancel_on_kill,
            end_from_trigger=ending and not self.outlets,
            min_records=self.min_records,
            owned=owned,
            stalled_after=None if method_name == "execute_after" else self.stalled_after,
            on_stall=self.on_stall,
            # Not as arguments of the resuming method: the official provider's takes none, and `airflow dags test` does
            # not pass them.
            began=began,
            try_number=_try_number(context),
        )
        self.defer(trigger=trigger, method_name=method_name)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the task's lineage, also after a failure, if Airflow's OpenLineage provider is installed."""
        return None if self.connection_id is None else lineage(self.hook, self.connection_id, self._result)

    def on_kill(self) -> None:
        """Cancel the task's own job if a person failed, cleared or marked the task, or after ``execution_timeout``.

        Airflow calls this for every SIGTERM, also when a worker shuts down or the scheduler has given up the task.
        Then, or if the reason is unknown, the job continues for the next try.
        """
        overdue = isinstance(sys.exc_info()[1], AirflowTaskTimeout)
        if not self.cancel_on_kill:
            return
        if not overdue and not ended_by_a_person(self._ti):
            self.log.info("the Airbyte job continues: the worker shuts down, and no person ended the task")
            return
        self._killed = True
        if self._task_job is not None:
            self._task_job.cancel_at_kill(overdue=overdue)


def _try_number(context: Context) -> int | None:
    number: int | None = getattr(context.get("ti"), "try_number", None)
    return number

"""The triggers that wait for Airbyte jobs."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Hashable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TaskSuccessEvent, TriggerEvent
from asgiref.sync import sync_to_async

from airbyte_events.airbyte.submission import OnConflict, find_created
from airbyte_events.errors import AirbyteEventsError
from airbyte_events.events import Identity, JobEvent, parse_status
from airbyte_events.hub.subscription import Place, Wanted
from airbyte_events_provider.arguments import check_count, check_flag, check_job_id, check_number, check_text, seconds
from airbyte_events_provider.retry.task_state import Entry, TriggerLedger
from airbyte_events_provider.stats import count_completion
from airbyte_events_provider.triggers.end import leave_xcoms
from airbyte_events_provider.triggers.on_kill import has_moved, to_its_end
from airbyte_events_provider.triggers.start import NotStarted, began_at, start
from airbyte_events_provider.triggers.start import Wanted as Asked
from airbyte_events_provider.waiting.asset_state import Cursors
from airbyte_events_provider.waiting.connection_sync import Sought, await_sync, moment
from airbyte_events_provider.waiting.deferral import Deferral
from airbyte_events_provider.waiting.result import BEGIN, ERROR, SUCCESS, arrival, conclude, missing_records, xcoms
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub, wait_shared
from airbyte_events_provider.waiting.shared_stream import SHARES_STREAMS, Member, Producer, stream_of
from airbyte_events_provider.waiting.watch import Watch, several, terminal_status, watch_on

_BEFORE_AIRFLOW = 3.0


class _ByArguments:
    """A trigger that is made again elsewhere from its constructor's arguments, each of which it keeps by its name."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path, and the arguments to make the same trigger elsewhere; none of them is secret."""
        made = type(self)
        names = list(inspect.signature(made).parameters)
        return f"{made.__module__}.{made.__qualname__}", {name: getattr(self, name) for name in names}


class AirbyteSyncTrigger(_ByArguments, BaseTrigger):
    """Fires once, when an Airbyte job has ended: told by a listener, or found by polling.

    All triggers of a triggerer share one stream and one poll for each Airbyte. Its event is an object with ``status``
    (``success``, ``error``, ``cancelled``, or ``timeout`` past the execution deadline), ``message``, ``job_id`` and
    ``job`` (the job's event data, None if it has not ended).

    :param job_id: which job.
    :param conn_id: the Airflow connection of the Airbyte.
    :param end_time: until when to wait, in seconds since the epoch; None for as long as it takes.
    :param poll_interval: seconds between looks while no listener tells. The triggers of one Airbyte share their looks,
        and the shortest interval counts.
    :param execution_deadline: until when the job may run, in seconds since the epoch. This and ``end_time`` are
        compared only after the job's status was asked for.
    :param listener_conn_id: the Airflow connection of the listener; by default the one that the Airbyte's connection or
        Airflow's configuration names. An empty string is none.
    :param connection_id: the Airbyte connection that the job is of; another Airbyte's job is not taken for it.
    :param cancel_on_kill: whether the job is cancelled when a person fails, clears or marks the deferred task.
    :param end_from_trigger: whether a success ends the task without a worker.
    :param min_records: a success that moved fewer records is left to a worker, which fails the task.
    :param owned: whether the task created the job. One that waits for somebody else's job never cancels it.
    :param began: when the task began, in seconds since the epoch; the event repeats it, ``owned`` and ``try_number``.
    :param try_number: which try of the task waits.
    :param started_at: when the job was created, in seconds since the epoch: Airbyte gives numbers again once its
        database was restored or made anew, and another job's end is not taken for this one's.
    :raises WrongArgument: if an argument is of the wrong type.
    """

    def __init__(
        self,
        job_id: int,
        conn_id: str,
        end_time: float | None,
        poll_interval: float,
        execution_deadline: float | None = None,
        listener_conn_id: str | None = None,
        connection_id: str | None = None,
        cancel_on_kill: bool = True,
        end_from_trigger: bool = False,
        min_records: int | None = None,
        owned: bool = True,
        began: float | None = None,
        try_number: int | None = None,
        started_at: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        check_job_id("job_id", job_id)
        check_text("conn_id", conn_id)
        check_number("end_time", end_time, optional=True, unit="seconds since the epoch")
        check_number("poll_interval", poll_interval)
        check_number("execution_deadline", execution_deadline, optional=True, unit="seconds since the epoch")
        check_text("listener_conn_id", listener_conn_id, optional=True)
        check_text("connection_id", connection_id, optional=True)
        check_number("started_at", started_at, optional=True, unit="seconds since the epoch")
        check_flag("cancel_on_kill", cancel_on_kill)
        check_flag("owned", owned)
        check_flag("end_from_trigger", end_from_trigger)
        check_count("min_records", min_records, optional=True)
        self.job_id = job_id
        self.conn_id = conn_id
        self.end_time = end_time
        self.poll_interval = poll_interval
        self.execution_deadline = execution_deadline
        self.listener_conn_id = listener_conn_id
        self.connection_id = connection_id
        self.cancel_on_kill = cancel_on_kill
        self.end_from_trigger = end_from_trigger
        self.min_records = min_records
        self.owned = owned
        self.began = began
        self.try_number = try_number
        self.started_at = started_at

    @property
    def _hub_key(self) -> HubKey:
        return HubKey(self.conn_id, self.listener_conn_id)

    @property
    def _created_at(self) -> datetime | None:
        return None if self.started_at is None else datetime.fromtimestamp(self.started_at, UTC)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire once."""
        deferral = Deferral(self.task_instance, self.began)
        event = await self.event(self.task_instance)
        if not isinstance(event, TaskSuccessEvent):
            await deferral.over()
        # Nothing that must end in the task that began it (a task group, a cancel scope) is open around the yield.
        yield event

    async def event(self, ti: Any) -> TriggerEvent:
        """Wait; what is to be fired then.

        :param ti: the task instance that waits; None where no triggerer runs the trigger.
        """
        repeated = {"owned": self.owned, "began": self.began, "try_number": self.try_number}
        told = {**await self._conclude(), **repeated}
        succeeded = told["status"] == SUCCESS and missing_records(told, self.min_records) is None
        # What fails goes on in a worker: only there it can fail for good, or fire off e-mails.
        if self.end_from_trigger and succeeded and await leave_xcoms(ti, xcoms(told)):
            return TaskSuccessEvent()
        return TriggerEvent(told)  # type: ignore[no-untyped-call]

    async def _conclude(self) -> dict[str, Any]:
        try:
            return await conclude(self._wait(), self.job_id, self.end_time, self.execution_deadline)
        except Exception as exc:
            # A trigger that ends without an event fails its task without a word.
            self.log.exception("Waiting for Airbyte job %s failed", self.job_id)
            message = f"Waiting for Airbyte job {self.job_id} failed: {type(exc).__name__}: {exc}"
            return {"status": ERROR, "message": message, "job_id": self.job_id, "job": None}

    async def _wait(self) -> JobEvent:
        self.log.info("Waiting for Airbyte job %s", self.job_id)
        deadlines = [each for each in (self.end_time, self.execution_deadline) if each is not None]
        event = await wait_shared(
            self._hub_key,
            int(self.job_id),
            connection_id=self.connection_id,
            started_at=self._created_at,
            until=min(deadlines, default=None),
            poll_interval=self.poll_interval,
        )
        self.log.info("%s", arrival(event))
        count_completion(event)
        return event

    async def is_still_running(self, hook: Any) -> bool:
        """Return whether the job is active, as the official trigger does.

        :param hook: an ``AirbyteHook``, ours or theirs.
        """
        status = await sync_to_async(hook.get_job_status)(self.job_id)
        return not parse_status(getattr(status, "value", status)).terminal

    async def on_kill(self) -> None:
        """Cancel the task's own job, if it runs: a person has failed, cleared or marked the task that waits for it."""
        if self.cancel_on_kill and self.owned:
            await to_its_end(self._on_kill())

    async def _on_kill(self) -> None:
        if not await has_moved(self.task_instance):
            await self.cancel()

    async def cancel(self) -> None:
        """Cancel the job, if it runs."""
        try:
            async with shared_hub(self._hub_key) as shared:
                job = await shared.airbyte.cancel_job(int(self.job_id), Identity(self.connection_id, self._created_at))
        except AirbyteEventsError as exc:
            self.log.warning("Airbyte job %s could not be cancelled: %s", self.job_id, exc)
        else:
            self.log.info("The task was ended by a person: Airbyte job %s is %s", self.job_id, job.status.value)


class AirbyteStartTrigger(_ByArguments, BaseTrigger):
    """Starts an Airbyte job and waits for its end: a task that begins in the triggerer needs no worker for either.

    Fires the events of :class:`AirbyteSyncTrigger`. What is not plain sailing (a retry, a job in the way, an Airbyte
    that refuses) it leaves to a worker, by an event with ``begin`` and a ``message``.

    A trigger may begin again, in this process or another. It keeps what it has asked for as an XCom of the task: so
    no job is started twice, and no other one is taken for the task's own.

    :param connection_id: the Airbyte connection (UUID). Templated.
    :param airbyte_conn_id: the Airflow connection of the Airbyte. Templated.
    :param listener_conn_id: that of the listener, see :class:`AirbyteSyncTrigger`. Templated.
    :param job_type: ``sync``, ``reset`` or ``clear``.
    :param on_conflict: see :class:`~airbyte_events.airbyte.submission.OnConflict`.
    :param timeout: seconds to wait, None for as long as it takes. Like the next it counts from when the task began.
    :param execution_timeout: seconds that the task may take.
    :param poll_interval: as for :class:`AirbyteSyncTrigger`, and so are the rest.
    """

    def __init__(
        self,
        connection_id: str,
        airbyte_conn_id: str,
        listener_conn_id: str | None = None,
        job_type: str = "sync",
        on_conflict: str = "attach",
        timeout: float | None = None,
        execution_timeout: float | None = None,
        poll_interval: float = 10.0,
        cancel_on_kill: bool = True,
        end_from_trigger: bool = False,
        min_records: int | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        for name, value in (("connection_id", connection_id), ("airbyte_conn_id", airbyte_conn_id)):
            check_text(name, value)
        check_text("listener_conn_id", listener_conn_id, optional=True)
        check_number("timeout", timeout, optional=True)
        check_number("execution_timeout", execution_timeout, optional=True)
        check_number("poll_interval", poll_interval)
        self.connection_id = connection_id
        self.airbyte_conn_id = airbyte_conn_id
        self.listener_conn_id = listener_conn_id
        self.job_type = job_type
        self.on_conflict = on_conflict
        self.timeout = timeout
        self.execution_timeout = execution_timeout
        self.poll_interval = poll_interval
        self.cancel_on_kill = cancel_on_kill
        self.end_from_trigger = end_from_trigger
        self.min_records = min_records
        self.timeout_after: datetime | None = None
        """Until when Airflow lets it run, which the triggerer sets."""
        self._ledger: TriggerLedger | None = None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Start, wait, then fire once."""
        yield await self._event()

    async def _event(self) -> TriggerEvent:
        try:
            return await self._waiting(await self._start()).event(self.task_instance)
        except NotStarted as exc:
            message = str(exc)
        except Exception as exc:
            self.log.exception("No job of Airbyte connection %s could be started here", self.connection_id)
            message = f"{type(exc).__name__}: {exc}"
        handed_over = {
            "status": ERROR,
            BEGIN: True,
            "message": f"Beginning in a worker: {message}",
            "job_id": None,
            "began": began_at(self.timeout_after, self.execution_timeout),
        }
        return TriggerEvent(handed_over)  # type: ignore[no-untyped-call]

    async def _start(self) -> Entry:
        if (getattr(self.task_instance, "try_number", 1) or 1) > 1:
            raise NotStarted("this is not the task's first try.")
        ledger = self._ledger = TriggerLedger(self.task_instance)
        began = began_at(self.timeout_after, self.execution_timeout) or time.time()
        wanted = Asked(
            connection_id=self.connection_id,
            job_type=self.job_type,
            on_conflict=OnConflict(self.on_conflict),
            until=None if self.timeout is None else began + self.timeout,
        )
        async with shared_hub(HubKey(self.airbyte_conn_id, self.listener_conn_id)) as shared, shared.starting:
            return await start(shared.airbyte, ledger, wanted)

    def _waiting(self, entry: Entry) -> AirbyteSyncTrigger:
        # From when the task began, by our clock: this may be the second trigger that waits for the job, and the job may
        # be older than the task, or its time another clock's.
        began = began_at(self.timeout_after, self.execution_timeout) or entry.asked_at.timestamp()
        limit = self.execution_timeout
        assert entry.job_id is not None  # noqa: S101 -- it has been started
        return AirbyteSyncTrigger(
            entry.job_id,
            self.airbyte_conn_id,
            end_time=None if self.timeout is None else began + self.timeout,
            poll_interval=self.poll_interval,
            # A little before Airflow's own time-out, which fails the task and leaves the job running.
            execution_deadline=None if limit is None else began + limit - min(_BEFORE_AIRFLOW, limit / 10),
            listener_conn_id=self.listener_conn_id,
            connection_id=self.connection_id,
            end_from_trigger=self.end_from_trigger,
            min_records=self.min_records,
            owned=entry.owned,
            began=began,
            started_at=seconds(entry.started_at),
        )

    async def on_kill(self) -> None:
        """Cancel the job, if it was started; see :meth:`AirbyteSyncTrigger.on_kill`."""
        if self.cancel_on_kill:
            await to_its_end(self._on_kill())

    async def _on_kill(self) -> None:
        if self.task_instance is None or await has_moved(self.task_instance):
            return
        try:
            ledger = self._ledger or TriggerLedger(self.task_instance)
            entry = ledger.entry or await ledger.read()
            if entry is None or entry.done or not entry.owned:
                return
            job_id = entry.job_id
            if job_id is None:
                # Its creation may have been cut off.
                async with shared_hub(HubKey(self.airbyte_conn_id, self.listener_conn_id)) as shared:
                    job = await find_created(shared.airbyte, self.connection_id, self.job_type, entry.after_id or 0)
                if job is None:
                    return
                job_id = job.job_id
            await self._waiting(replace(entry, job_id=job_id)).cancel()
        except Exception as exc:
            # Airflow's errors here are of many kinds.
            self.log.warning("The job of Airbyte connection %s could not be cancelled: %s", self.connection_id, exc)


class AirbyteConnectionSyncTrigger(_ByArguments, BaseTrigger):
    """Fires once, when a connection has a successful job that ended after a given time, whoever started it.

    The events are those of :class:`AirbyteSyncTrigger`: ``success``, or ``timeout`` past the end time, or ``error`` if
    nobody can be asked.

    :param connection_id: the Airbyte connection (UUID).
    :param conn_id: the Airflow connection of the Airbyte.
    :param after: when the job ended at the earliest, ISO 8601.
    :param end_time: until when to wait, in seconds since the epoch; compared only after Airbyte was asked. None for as
        long as it takes.
    :param poll_interval: seconds between looks while no listener tells, see :class:`AirbyteSyncTrigger`.
    :param job_type: ``sync``, ``reset``, ``clear`` or ``refresh``.
    :param min_records: a success that moved fewer records is not the one.
    :param listener_conn_id: that of the listener, see :class:`AirbyteSyncTrigger`.
    :param began: when the task began, in seconds since the epoch.
    :raises WrongArgument: if an argument is of the wrong type.
    """

    def __init__(
        self,
        connection_id: str,
        conn_id: str,
        after: str,
        end_time: float | None,
        poll_interval: float,
        job_type: str = "sync",
        min_records: int | None = None,
        listener_conn_id: str | None = None,
        began: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        for name, value in (("connection_id", connection_id), ("conn_id", conn_id), ("after", after)):
            check_text(name, value)
        check_number("end_time", end_time, optional=True, unit="seconds since the epoch")
        check_number("poll_interval", poll_interval)
        check_text("job_type", job_type)
        check_count("min_records", min_records, optional=True)
        check_text("listener_conn_id", listener_conn_id, optional=True)
        self.connection_id = connection_id
        self.conn_id = conn_id
        self.after = after
        self.end_time = end_time
        self.poll_interval = poll_interval
        self.job_type = job_type
        self.min_records = min_records
        self.listener_conn_id = listener_conn_id
        self.began = began

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire once."""
        deferral = Deferral(self.task_instance, self.began)
        told = await self._conclude()
        await deferral.over()
        yield TriggerEvent(told)  # type: ignore[no-untyped-call]

    async def _conclude(self) -> dict[str, Any]:
        try:
            after = moment(self.after)
            if after is None:
                raise ValueError("after is no time")
            sought = Sought(
                connection_id=self.connection_id,
                after=after,
                job_type=self.job_type,
                min_records=self.min_records,
            )
            self.log.info("Waiting for %s", sought)
            return await await_sync(
                HubKey(self.conn_id, self.listener_conn_id),
                sought,
                until=self.end_time,
                poll_interval=self.poll_interval,
            )
        except AirbyteEventsError as exc:
            message = f"Can't wait for Airbyte connection {self.connection_id}: {exc}"
        except Exception as exc:
            # A trigger that ends without an event fails its task without a word.
            self.log.exception("Waiting for Airbyte connection %s failed", self.connection_id)
            message = f"Waiting for Airbyte connection {self.connection_id} failed: {type(exc).__name__}: {exc}"
        return {"status": ERROR, "message": message, "job_id": None, "job": None}


class AirbyteSyncEventTrigger(_ByArguments, BaseEventTrigger):
    """For an asset's watcher: fires whenever a job of a connection ends, whoever started it.

    ::

        Asset("orders", watchers=[AssetWatcher(name="synced", trigger=AirbyteSyncEventTrigger(connection_ids="…"))])

    Its events are jobs' event data (:meth:`airbyte_events.events.JobEvent.data`): ``instance``, ``job_id``,
    ``connection_id``, ``workspace_id``, ``job_type``, ``status``, ``previous_status``, ``started_at``, ``finished_at``,
    ``observed_at``, ``records``, ``bytes``, ``duration_seconds``, ``origin``, ``error`` (``message``, ``type``,
    ``origin``), and ``names`` and ``url`` where a webhook brought them. A task of the DAG that is run finds it in the
    asset event's ``extra["payload"]``.

    Each end is told once. Trouble (with Airbyte, the listener, Airflow's connections) never ends the watch. It begins
    with what ends once it runs; from Airflow 3.3 on it goes on where it was after a triggerer's death, and repeats at
    most what Airflow had not stored.

    :param airbyte_conn_id: the Airflow connection of the Airbyte.
    :param connection_ids: the Airbyte connection (UUID), or several; all by default.
    :param workspace_ids: only connections in this Airbyte workspace (UUID), or these; all by default.
    :param job_types: ``sync``, ``reset``, ``clear``, ``refresh``; empty for all. Airbyte reports a clear as ``reset``:
        either name means both.
    :param statuses: ``succeeded``, ``failed``, ``cancelled``; empty for all.
    :param listener_conn_id: the Airflow connection of the listener; by default the one that the Airbyte's connection or
        Airflow's configuration names. An empty string is none.
    :param poll_interval: seconds between looks while no listener tells; by default as ``[airbyte_events]
        poll_interval`` says. All triggers of one Airbyte share their looks, and the shortest interval counts.
    :raises ValueError: if a status is not one that a job ends with.
    """

    def __init__(
        self,
        airbyte_conn_id: str = "airbyte_default",
        *,
        connection_ids: str | Iterable[str] | None = None,
        workspace_ids: str | Iterable[str] | None = None,
        job_types: str | Iterable[str] = ("sync",),
        statuses: str | Iterable[str] = ("succeeded",),
        listener_conn_id: str | None = None,
        poll_interval: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        check_text("airbyte_conn_id", airbyte_conn_id)
        check_text("listener_conn_id", listener_conn_id, optional=True)
        check_number("poll_interval", poll_interval, optional=True)
        self.airbyte_conn_id = airbyte_conn_id
        # The same values, in whatever order, are the same trigger.
        self.connection_ids = several(connection_ids)
        self.workspace_ids = several(workspace_ids)
        self.job_types = several(job_types)
        self.statuses = several(statuses)
        self.listener_conn_id = listener_conn_id
        self.poll_interval = poll_interval
        self._watch = Watch(
            key=HubKey(airbyte_conn_id, listener_conn_id),
            wanted=Wanted(
                connection_ids=frozenset(self.connection_ids),
                job_types=frozenset(self.job_types),
                statuses=frozenset(map(terminal_status, self.statuses)),
            ),
            workspace_ids=frozenset(map(str.lower, self.workspace_ids)),
            poll_interval=poll_interval,
        )
        self._member: Member | None = None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire for each end: by a stream of its own, where Airflow has no shared ones (before 3.3)."""
        async for item in watch_on(self._watch, Place()):
            if isinstance(item, JobEvent):
                yield self._event(item)

    def shared_stream_key(self) -> Hashable | None:
        """The same for all watchers of one Airbyte by one listener."""
        return ("airbyte-events", *self._watch.key) if SHARES_STREAMS else None

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> Producer:
        """What Airflow reads for all who have the same :meth:`shared_stream_key`."""
        return Producer(HubKey(kwargs["airbyte_conn_id"], kwargs["listener_conn_id"]))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Join the stream, and fire for what is meant for this watcher."""
        cursors = Cursors(getattr(self, "asset_state_store", None), self.serialize()[1])
        member = self._member = Member(stream_of(self._watch.key), self._watch, cursors)
        try:
            async for item in shared_stream:
                if item.member is member:
                    yield self._event(item.event)
                    item.passed = True
        finally:
            member.leave()

    def _event(self, event: JobEvent) -> TriggerEvent:
        self.log.info("%s", arrival(event))
        count_completion(event)
        return TriggerEvent(event.data())  # type: ignore[no-untyped-call]

    async def cleanup(self) -> None:
        """Leave the stream."""
        if self._member is not None:
            self._member.leave()

"""The trigger that waits for an Airbyte job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airbyte_events.errors import AirbyteEventsError
from airbyte_events.events import JobEvent
from airbyte_events_provider.hub import HubKey, shared_hub, wait_shared
from airbyte_events_provider.outcome import ERROR, arrival, conclude


class AirbyteSyncTrigger(BaseTrigger):
    """Fires once, when an Airbyte job has ended: told by a listener, or found by polling.

    All triggers of a triggerer share one stream and one poll for each Airbyte. Its event is an object with ``status``
    (``success``, ``error``, ``cancelled``, or ``timeout`` past the execution deadline), ``message``, ``job_id`` and
    ``job`` (the job's event data, None if it has not ended).

    :param job_id: which job.
    :param conn_id: the Airflow connection of the Airbyte.
    :param end_time: until when to wait, in seconds since the epoch.
    :param poll_interval: seconds between looks while no listener tells. The triggers of one Airbyte share their looks,
        and the shortest interval counts.
    :param execution_deadline: until when the job may run, in seconds since the epoch. This and ``end_time`` are
        compared only after the job's status was asked for.
    :param listener_conn_id: the Airflow connection of the listener; by default the one that the Airbyte's connection or
        Airflow's configuration names. An empty string is none.
    :param connection_id: the Airbyte connection that the job is of; another Airbyte's job is not taken for it.
    :param cancel_on_kill: whether the job is cancelled when a person fails, clears or marks the deferred task.
    """

    def __init__(
        self,
        job_id: int,
        conn_id: str,
        end_time: float,
        poll_interval: float,
        execution_deadline: float | None = None,
        listener_conn_id: str | None = None,
        connection_id: str | None = None,
        cancel_on_kill: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_id = job_id
        self.conn_id = conn_id
        self.end_time = end_time
        self.poll_interval = poll_interval
        self.execution_deadline = execution_deadline
        self.listener_conn_id = listener_conn_id
        self.connection_id = connection_id
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path, and the arguments to make the same trigger elsewhere; none of them is secret."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "job_id": self.job_id,
                "conn_id": self.conn_id,
                "end_time": self.end_time,
                "poll_interval": self.poll_interval,
                "execution_deadline": self.execution_deadline,
                "listener_conn_id": self.listener_conn_id,
                "connection_id": self.connection_id,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    @property
    def _hub_key(self) -> HubKey:
        return HubKey(self.conn_id, self.listener_conn_id)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire once."""
        # Nothing that must end in the task that began it (a task group, a cancel scope) is open around the yield.
        yield TriggerEvent(await self._conclude())  # type: ignore[no-untyped-call]

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
            until=min(deadlines, default=None),
            poll_interval=self.poll_interval,
        )
        self.log.info("%s", arrival(event))
        return event

    async def on_kill(self) -> None:
        """Cancel the job, if it runs: a person has failed, cleared or marked the task that waits for it."""
        if not self.cancel_on_kill:
            return
        try:
            async with shared_hub(self._hub_key) as shared:
                job = await shared.airbyte.cancel_job(int(self.job_id))
        except AirbyteEventsError as exc:
            self.log.warning("Airbyte job %s could not be cancelled: %s", self.job_id, exc)
        else:
            self.log.info("The task was ended by a person: Airbyte job %s is %s", self.job_id, job.status.value)

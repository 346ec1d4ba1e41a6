"""The state that a task's tries share, so that a retry resumes the job of an earlier try.

Airflow 3.3 has a state store for each task instance, which is kept when the task is retried or cleared. The triggerer
has no access to it, so a task that begins there stores its record as an XCom. Older versions have no such store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.xcom import BaseXCom

from airbyte_events_provider.retry.record import JobRecord

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

KEY = "airbyte_job"
"""The record's key in the task state store."""

XCOM = "airbyte_submission"
"""The key of a trigger's record as an XCom."""

_CLOCKS = timedelta(seconds=2)
_SOON = timedelta(seconds=60)


class TaskState:
    """The record of the task in this context. Without a state store, no record is found.

    :param retries: the task's ``retries``.
    :param begun_by_trigger: whether the task may have begun in the triggerer.
    """

    def __init__(self, context: Context, *, retries: int = 0, begun_by_trigger: bool = False) -> None:
        given: Mapping[str, Any] = context
        self._store = given.get("task_state_store")
        self._ti = given.get("ti")
        self._dag_run = given.get("dag_run")
        self._retries = retries
        self._begun_by_trigger = begun_by_trigger

    @property
    def available(self) -> bool:
        """Whether this Airflow stores task state."""
        return self._store is not None

    @property
    def max_tries(self) -> int:
        return int(getattr(self._ti, "max_tries", 0) or 0)

    def read(self) -> JobRecord | None:
        record = None if self._store is None else JobRecord.parse(self._store.get(KEY))
        if record is None and self._begun_by_trigger and self._ti is not None:
            record = read_xcom(self._ti)
            # Only the first try of a task begins there.
            return record and replace(record, max_tries=self._retries)
        return record

    def connection_of(self, name: str, workspace_id: str | None, url: str) -> str | None:
        """Return the id that an earlier try has found for a connection's name; None after a person cleared the task.

        The other parameters are those of :meth:`JobRecord.connection_of`.
        """
        record = self.read()
        if record is None or record.max_tries != self.max_tries:
            return None
        return record.connection_of(name, workspace_id, url)

    def write(self, record: JobRecord) -> None:
        if self._store is not None:
            self._store.set(KEY, record.values())

    def delete(self) -> None:
        if self._store is not None:
            self._store.delete(KEY)

    def give_up(self) -> None:
        """Mark the job as done: a retry starts another."""
        if (record := self.read()) is not None:
            self.write(replace(record, done=True))

    @property
    def try_since_clearing(self) -> int:
        """The number of this try, counted since a person last cleared the task."""
        return int(getattr(self._ti, "try_number", 1) or 1) - (self.max_tries - self._retries)

    @property
    def just_cleared(self) -> bool:
        """Whether this is the first try after a person cleared the task."""
        return self.max_tries > self._retries and self.try_since_clearing == 1

    @property
    def run_started_at(self) -> datetime | None:
        started_at: datetime | None = getattr(self._dag_run, "start_date", None)
        return started_at

    def cancelled_by_clearing(self, finished_at: datetime | None, ahead: timedelta) -> bool:
        """Return whether a job was cancelled because its task was cleared, and not by a person in Airbyte.

        When a task is cleared, Airflow prepares the next try, and right after that the previous try cancels its job.

        :param finished_at: when the job was cancelled, by Airbyte's clock.
        :param ahead: how far that clock is ahead of ours.
        """
        prepared = prepared_at(self._ti)
        return prepared is not None and finished_at is not None and -_CLOCKS < finished_at - ahead - prepared < _SOON


def read_xcom(ti: Any) -> JobRecord | None:
    """Return the record that a trigger has stored."""
    return JobRecord.parse(BaseXCom.get_one(key=XCOM, **xcom_location(ti)))


def xcom_location(ti: Any) -> dict[str, Any]:
    """Return the arguments by which Airflow finds the XComs of a task instance."""
    map_index = -1 if ti.map_index is None else ti.map_index
    return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": map_index}


def prepared_at(ti: object) -> datetime | None:
    """Return when Airflow prepared this try: at the DAG run, the failure of the previous try, or the clearing.

    :param ti: the task instance. Airflow 3 gives each try a UUID of version 7, whose first 48 bits are milliseconds
        since the epoch (RFC 9562).
    """
    uuid = getattr(ti, "id", None)
    number = getattr(uuid, "int", None)
    if number is None or getattr(uuid, "version", None) != 7:
        return None
    return datetime.fromtimestamp((number >> 80) / 1000, UTC)

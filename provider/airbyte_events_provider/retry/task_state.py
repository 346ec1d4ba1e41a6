"""What a task has asked Airbyte for, kept over its tries: by it a retry goes on with the job that is there.

Airflow 3.3 keeps a state for each task instance that its retries and clearings share. Its triggerer can't reach that,
but XComs: a task that begins there keeps its entry as one, which a try that goes on in a worker reads. Older versions
keep nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.xcom import BaseXCom
from asgiref.sync import sync_to_async

from airbyte_events._utils.times import format_time, parse_time

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

KEY = "airbyte_job"
"""Of the entry in the task state store."""

XCOM = "airbyte_submission"
"""Of the entry that a trigger keeps."""

_CLOCKS = timedelta(seconds=2)
_SOON = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What was asked for last.

    :param url: of the Airbyte.
    :param connection_id: the Airbyte connection (UUID).
    :param job_type: ``sync``, ``reset`` or ``clear``.
    :param asked_at: when the task began to ask, by the clock of its process.
    :param after_id: the connection's highest job id then. What the task created has a higher one.
    :param job_id: what Airbyte answered; None while it has not.
    :param started_at: when it created that job.
    :param max_tries: the task's then: every clearing by a person raises it.
    :param done: whether the task has given that job up: it cancelled it itself, or what it brought was not enough.
    :param owned: whether the task created the job, or may have; otherwise it waits for somebody else's.
    :param adopted: whether the job was active still when a person cleared the task: its cancellation may be under way.
    """

    url: str
    connection_id: str
    job_type: str
    asked_at: datetime
    after_id: int | None = None
    job_id: int | None = None
    started_at: datetime | None = None
    max_tries: int
    done: bool = False
    owned: bool = True
    adopted: bool = False

    def values(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "url": self.url,
            "connection_id": self.connection_id,
            "job_type": self.job_type,
            "asked_at": format_time(self.asked_at),
            "after_id": self.after_id,
            "job_id": self.job_id,
            "started_at": format_time(self.started_at),
            "max_tries": self.max_tries,
            "done": self.done,
            "owned": self.owned,
            "adopted": self.adopted,
        }

    @classmethod
    def parse(cls, values: object) -> Entry | None:
        """What :meth:`values` gave; None if it is something else."""
        try:
            given = dict(values)  # type: ignore[call-overload]
            asked_at, started_at = parse_time(given.pop("asked_at")), parse_time(given.pop("started_at", None))
            return None if asked_at is None else cls(asked_at=asked_at, started_at=started_at, **given)
        except (TypeError, ValueError, KeyError):
            return None


class Ledger:
    """The entry of the task that runs in this context. Where Airflow keeps none, reading finds nothing.

    :param retries: how often the task may be tried again.
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
    def kept(self) -> bool:
        """Whether this Airflow keeps entries."""
        return self._store is not None

    @property
    def max_tries(self) -> int:
        """See :class:`Entry`."""
        return int(getattr(self._ti, "max_tries", 0) or 0)

    def read(self) -> Entry | None:
        """The entry, if there is one."""
        entry = None if self._store is None else Entry.parse(self._store.get(KEY))
        if entry is None and self._begun_by_trigger and self._ti is not None:
            entry = _read_xcom(self._ti)
            # Only a task's very first try begins there.
            return entry and replace(entry, max_tries=self._retries)
        return entry

    def write(self, entry: Entry) -> None:
        """Replace the entry."""
        if self._store is not None:
            self._store.set(KEY, entry.values())

    def forget(self) -> None:
        """Delete the entry."""
        if self._store is not None:
            self._store.delete(KEY)

    @property
    def try_of_this_clearing(self) -> int:
        """The number of this try, counted from when a person last cleared the task, else from the first."""
        return int(getattr(self._ti, "try_number", 1) or 1) - (self.max_tries - self._retries)

    @property
    def just_cleared(self) -> bool:
        """Whether a person clearing the task is why this try is made."""
        return self.max_tries > self._retries and self.try_of_this_clearing == 1

    @property
    def run_began(self) -> datetime | None:
        """When the DAG run did."""
        began: datetime | None = getattr(self._dag_run, "start_date", None)
        return began

    @property
    def prepared_at(self) -> datetime | None:
        """When Airflow prepared this try: with the DAG run, when the try before failed, or when a person cleared it."""
        return prepared_at(self._ti)

    def cleared_away(self, ended_at: datetime | None, ahead: timedelta) -> bool:
        """Whether a job that was cancelled then was so because its task was cleared, and not by a person in Airbyte.

        Airflow prepares the next try as soon as a task is cleared, and the try before ends, and cancels its job, right
        after that.

        :param ended_at: by Airbyte's clock.
        :param ahead: how far that is ahead of ours.
        """
        prepared = self.prepared_at
        return prepared is not None and ended_at is not None and -_CLOCKS < ended_at - ahead - prepared < _SOON


class TriggerLedger:
    """The entry of a task that begins in the triggerer: an XCom, as a trigger can reach no other state of its task.

    So a trigger that begins again, in this process or another, knows what it has asked for.

    :param ti: of the task.
    """

    def __init__(self, ti: Any) -> None:
        self.entry: Entry | None = None
        """What was read or written last."""
        self._ti = ti

    async def read(self) -> Entry | None:
        """Return the entry; None if there is none, so that this task has asked for nothing."""
        with contextlib.suppress(ImportError):
            self.entry = await sync_to_async(_read_xcom)(self._ti)
        return self.entry

    async def write(self, entry: Entry) -> None:
        """Replace the entry."""
        self.entry = entry
        # Outside a triggerer there is nothing to keep it, and nothing begins again.
        with contextlib.suppress(ImportError):
            await sync_to_async(BaseXCom.set)(XCOM, entry.values(), **_place(self._ti))


def _read_xcom(ti: Any) -> Entry | None:
    return Entry.parse(BaseXCom.get_one(key=XCOM, **_place(ti)))


def _place(ti: Any) -> dict[str, Any]:
    map_index = -1 if ti.map_index is None else ti.map_index
    return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": map_index}


def prepared_at(ti: object) -> datetime | None:
    """When the try that a task instance stands for was prepared: Airflow 3 gives each a UUID of version 7, which tells.

    :param ti: of any of the types that Airflow has for it.
    """
    uuid = getattr(ti, "id", None)
    number = getattr(uuid, "int", None)
    if number is None or getattr(uuid, "version", None) != 7:
        return None
    # RFC 9562: the first 48 bits are milliseconds since the epoch.
    return datetime.fromtimestamp((number >> 80) / 1000, UTC)

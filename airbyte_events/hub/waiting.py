"""The tasks that wait for jobs, and which job each of them means."""

from __future__ import annotations

from collections.abc import Collection, KeysView
from dataclasses import dataclass, field
from datetime import datetime

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events.events import Identity, JobEvent


@dataclass(eq=False, slots=True)
class WaitingTask:
    """A task that waits for a job.

    :param identity: the job's identity, completed by Airbyte's own state.
    :param task_url: the task's own page, for people who look at the job.
    :param confirmed: whether Airbyte itself has returned the job since.
    :param scope: cancelled to end the wait.
    """

    identity: Identity
    task_url: str | None = None
    began: datetime = field(default_factory=utcnow)
    confirmed: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def confirm(self, state: JobEvent) -> None:
        """Complete the identity from a state that Airbyte itself returned."""
        self.confirmed = True
        self.identity = Identity(
            self.identity.connection_id or state.connection_id, self.identity.started_at or state.started_at
        )

    def accepts(self, state: JobEvent) -> bool:
        """Return whether this is the job's completion, and not that of an earlier job with its id."""
        if not state.terminal or not self.identity.fits(state):
            return False
        known = None not in (self.identity.started_at, state.started_at)
        return known or self.confirmed or state.observed_at >= self.began


class WaitingTasks:
    """All waiting tasks, by job id."""

    def __init__(self) -> None:
        self._by_job: dict[int, set[WaitingTask]] = {}

    def __len__(self) -> int:
        return len(self._by_job)

    @property
    def job_ids(self) -> KeysView[int]:
        return self._by_job.keys()

    def of(self, job_id: int) -> Collection[WaitingTask]:
        return self._by_job.get(job_id, ())

    def identity(self, job_id: int) -> Identity:
        return next((each.identity for each in self.of(job_id)), Identity())

    def task_url(self, job_id: int) -> str | None:
        return next((each.task_url for each in self.of(job_id) if each.task_url is not None), None)

    def all_fit(self, state: JobEvent) -> bool:
        """Return whether this can be the state of the job that each waiting task means."""
        return all(each.identity.fits(state) for each in self.of(state.ref.job_id))

    def all_accept(self, state: JobEvent) -> bool:
        """Return whether the state is not terminal, or each waiting task accepts it."""
        return not state.terminal or all(each.accepts(state) for each in self.of(state.ref.job_id))

    def add(self, job_id: int, task: WaitingTask) -> None:
        self._by_job.setdefault(job_id, set()).add(task)

    def remove(self, job_id: int, task: WaitingTask) -> bool:
        """Remove a task; return whether no task waits for the job any more."""
        self._by_job[job_id].remove(task)
        if self._by_job[job_id]:
            return False
        del self._by_job[job_id]
        return True

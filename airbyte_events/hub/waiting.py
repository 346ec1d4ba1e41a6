"""Who waits for which job, and what each of them knows of it."""

from __future__ import annotations

from collections.abc import Collection, KeysView
from dataclasses import dataclass, field
from datetime import datetime

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events.events import Identity, JobEvent


@dataclass(eq=False, slots=True)
class Waiter:
    """A task that waits for a job.

    :param identity: what is known of the job; what Airbyte itself reports adds to it.
    :param began: when the wait did.
    :param confirmed: whether Airbyte itself has reported the job since.
    :param scope: what ends the wait.
    """

    identity: Identity
    began: datetime = field(default_factory=utcnow)
    confirmed: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def confirm(self, state: JobEvent) -> None:
        """Take over what Airbyte itself has reported of the job."""
        self.confirmed = True
        self.identity = Identity(
            self.identity.connection_id or state.connection_id, self.identity.started_at or state.started_at
        )

    def accepts(self, state: JobEvent) -> bool:
        """Return whether this is the completion of the job, and not of one that had its number before."""
        if not state.terminal or not self.identity.fits(state):
            return False
        known = None not in (self.identity.started_at, state.started_at)
        return known or self.confirmed or state.observed_at >= self.began


class Waiters:
    """All who wait, by the job's number."""

    def __init__(self) -> None:
        self._by_job: dict[int, set[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._by_job)

    @property
    def job_ids(self) -> KeysView[int]:
        """The jobs that somebody waits for."""
        return self._by_job.keys()

    def of(self, job_id: int) -> Collection[Waiter]:
        """Return who waits for this job."""
        return self._by_job.get(job_id, ())

    def identity(self, job_id: int) -> Identity:
        """Return what is known of a job that somebody waits for."""
        return next((each.identity for each in self.of(job_id)), Identity())

    def fit(self, state: JobEvent) -> bool:
        """Return whether this can be the state of the job that each of them waits for."""
        return all(each.identity.fits(state) for each in self.of(state.ref.job_id))

    def settle(self, state: JobEvent) -> bool:
        """Return whether the state is no completion, or one that each of them accepts."""
        return not state.terminal or all(each.accepts(state) for each in self.of(state.ref.job_id))

    def add(self, job_id: int, waiter: Waiter) -> None:
        self._by_job.setdefault(job_id, set()).add(waiter)

    def remove(self, job_id: int, waiter: Waiter) -> bool:
        """Remove one; return whether nobody waits for the job any more."""
        self._by_job[job_id].remove(waiter)
        if self._by_job[job_id]:
            return False
        del self._by_job[job_id]
        return True

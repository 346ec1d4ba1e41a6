"""The state of the simulated Airbyte, and the transitions of its jobs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import count
from uuid import uuid4

from airbyte_events._utils.times import utcnow
from airbyte_events.events import JobError
from airbyte_events.simulator.capacity import Capacity
from airbyte_events.simulator.models import Actor, Attempt, Connection, Job, Refused, Workspace, sample_id
from airbyte_events.simulator.scripts import DEFAULT_ERROR, Script
from airbyte_events.simulator.timers import Timers


class World:
    """Workspaces, connections and jobs, in memory.

    :param capacity: limits the jobs that run at a time; None: no limit.
    """

    def __init__(self, timers: Timers, capacity: Capacity | None = None) -> None:
        self.workspaces: dict[str, Workspace] = {}
        self.connections: dict[str, Connection] = {}
        self.sources: dict[str, Actor] = {}
        self.destinations: dict[str, Actor] = {}
        self.jobs: dict[int, Job] = {}
        self.recent: dict[int, Job] = {}
        """The same jobs, in order of their last change."""
        self.on_end: Callable[[Job], object] = lambda job: None
        """Called when a job has completed, after its status can be read."""
        self._timers = timers
        self._capacity = capacity or Capacity()
        self._job_ids = count(1)
        self._now = utcnow()
        for kind, actors in (("source", self.sources), ("destination", self.destinations)):
            actor = Actor(
                kind=kind,
                id=sample_id(kind, 1),
                name=f"Simulated {kind}",
                type="faker" if kind == "source" else "dev-null",
            )
            actors[actor.id] = actor

    def add_workspace(self, name: str = "Simulated workspace", id: str | None = None) -> Workspace:
        workspace = Workspace(id=id or str(uuid4()), name=name)
        self.workspaces[workspace.id] = workspace
        return workspace

    def add_connection(
        self,
        script: Script,
        *,
        name: str | None = None,
        id: str | None = None,
        workspace_id: str | None = None,
        active: bool = True,
    ) -> Connection:
        """:raises Refused: if the id is taken.
        :raises KeyError: if there is no such workspace.
        """
        if id in self.connections:
            raise Refused("state-conflict", f"there is a connection {id} already")
        workspace = self.workspaces[workspace_id] if workspace_id else next(iter(self.workspaces.values()))
        connection = Connection(
            id=id or str(uuid4()),
            name=name or f"Connection {len(self.connections) + 1}",
            workspace_id=workspace.id,
            source_id=sample_id("source", 1),
            destination_id=sample_id("destination", 1),
            script=script,
            created_at=self._clock(),
            active=active,
        )
        self.connections[connection.id] = connection
        return connection

    def delete_connection(self, connection: Connection) -> None:
        """Delete a connection and cancel its current job; its jobs stay readable."""
        self.cancel_current(connection)
        del self.connections[connection.id]

    def request_job(self, connection: Connection, type: str) -> Job:
        """Create a job as Airbyte's API does.

        A clear or reset cancels the connection's current job. A sync returns the current job, of any type, while no
        attempt of it runs.

        :raises Refused: if the connection is inactive, or a sync is requested while an attempt of the current job runs.
        """
        if not connection.active:
            raise Refused("state-conflict", "The connection is inactive: only an active connection can be synced")
        current = connection.current
        if type != "sync":
            self.cancel_current(connection)
        elif current is not None and (not current.attempts or current.status == "incomplete"):
            return current
        return self.start_job(connection, type)

    def start_job(
        self,
        connection: Connection,
        type: str = "sync",
        script: Script | None = None,
        created_at: datetime | None = None,
    ) -> Job:
        """Create a job as a schedule does.

        :param type: a ``clear`` is stored as a ``reset``.
        :param script: instead of the connection's.
        :param created_at: an earlier time of creation.
        :raises Refused: if the connection has a current job.
        """
        if connection.current is not None:
            raise Refused("try-again-later", f"A sync is already running for: {connection.id}")
        if script is None:
            script = connection.next_scripts.popleft() if connection.next_scripts else connection.script
        now = self._clock()
        kind = "reset" if type == "clear" else type
        refreshed = connection.stream_descriptors if kind == "refresh" else None
        if kind == "sync" and connection.to_refresh is not None:
            kind, refreshed, connection.to_refresh = "refresh", connection.to_refresh, None
        job = Job(
            id=next(self._job_ids),
            connection=connection,
            type=kind,
            script=script,
            status="",
            created_at=created_at or now,
            updated_at=now,
            scripted_at=now,
            refreshed=refreshed,
        )
        self.jobs[job.id] = job
        connection.jobs.append(job)
        connection.current = job
        self._play(job, 0, job.turn)
        return job

    def play(self, job: Job, script: Script) -> None:
        """Continue with another script, from its first phase.

        :raises Refused: if the job has completed.
        """
        self._must_be_active(job)
        self._capacity.withdraw(job)
        now = self._clock()
        job.done, job.script, job.scripted_at = job.progress(now), script, now
        self._play(job, 0, job.turn)

    def cancel_current(self, connection: Connection) -> None:
        """Cancel the connection's active job for a user, if there is one."""
        if connection.current is not None:
            self.end_job(connection.current, "cancelled", cancelled_by="user")

    def end_job(
        self,
        job: Job,
        status: str,
        *,
        error: JobError | None = None,
        records: int | None = None,
        bytes: int | None = None,
        cancelled_by: str | None = None,
    ) -> Job:
        """Complete the job now. Omitted values are taken from its script.

        :param status: ``succeeded``, ``failed`` or ``cancelled``.
        :raises Refused: if it has completed.
        """
        self._must_be_active(job)
        if status == "cancelled":
            job.cancelled_by = cancelled_by or job.script.cancelled_by
        elif not job.attempts:
            # A job that completes had an attempt, however short its script.
            job.attempts.append(Attempt(started_at=self._clock()))
        if job.attempts:
            job.records = job.script.records if records is None else records
            job.bytes = job.script.bytes if bytes is None else bytes
        if status == "failed":
            job.error = error or job.script.error or DEFAULT_ERROR
        self._change(job, status)
        job.ended_at = job.updated_at
        self._end_attempt(job, job.error)
        if job.connection.current is job:
            job.connection.current = None
        self.on_end(job)
        for admitted, step in self._capacity.leave(job):
            # The script stands still in the queue.
            admitted.scripted_at += self._clock() - admitted.updated_at
            self._play(admitted, step, admitted.turn)
        return job

    def _play(self, job: Job, step: int, turn: int) -> None:
        if job.terminal or job.turn != turn:
            return
        script = job.script
        if step == len(script.phases):
            assert script.end is not None  # noqa: S101 -- or no timer was set
            self.end_job(job, script.end)
            return
        phase = script.phases[step]
        if phase.status == "running" != job.status:
            if not self._capacity.enter(job, step):
                self._change(job, "queued")
                self._timers.after(self._capacity.longest_wait, self._cancel_queued, job, job.turn)
                return
            job.attempts.append(Attempt(started_at=self._clock()))
        self._change(job, phase.status)
        if phase.status == "incomplete":
            self._end_attempt(job, phase.error or script.error or DEFAULT_ERROR)
        if step < len(script.phases) - 1 or script.end is not None:
            self._timers.after(phase.seconds, self._play, job, step + 1, job.turn)

    def _cancel_queued(self, job: Job, turn: int) -> None:
        if not job.terminal and job.turn == turn:
            self.end_job(job, "cancelled", cancelled_by="airbyte")

    @staticmethod
    def _end_attempt(job: Job, error: JobError | None) -> None:
        if job.attempts and job.attempts[-1].ended_at is None:
            job.attempts[-1].ended_at, job.attempts[-1].error = job.updated_at, error

    def _change(self, job: Job, status: str) -> None:
        job.turn += 1
        job.status = status
        job.updated_at = self._clock()
        job.history.append((status, job.updated_at))
        self.recent.pop(job.id, None)
        self.recent[job.id] = job

    def _clock(self) -> datetime:
        """Return the time, which never goes back: the order of changes is the order of their times."""
        self._now = max(self._now, utcnow())
        return self._now

    @staticmethod
    def _must_be_active(job: Job) -> None:
        if job.terminal:
            raise Refused("state-conflict", f"job {job.id} has ended: {job.status}")

"""``airbyte-events trigger``: starts a sync, and waits for its end."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Annotated

import anyio
import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from airbyte_events._utils import json_values
from airbyte_events._utils.printable import shown
from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte import AirbyteClient, Job
from airbyte_events.airbyte.submission import How, OnConflict, Submission, submit
from airbyte_events.cli import options
from airbyte_events.cli.airbyte import chosen, find_connection, open_airbyte
from airbyte_events.cli.api_client import Address, Listener, open_listener
from airbyte_events.cli.output import Output, amount, duration, status
from airbyte_events.cli.runner import run
from airbyte_events.errors import AirbyteError, FeedError, WaitTimeout
from airbyte_events.events import JobEvent, JobStatus
from airbyte_events.hub.hub import Hub
from airbyte_events.listener.settings import Settings, load
from airbyte_events.monitor.poller import Ticks

SUCCEEDED, ENDED_OTHERWISE, TIMED_OUT = 0, 1, 3

USUAL_OF = 20
"""The usual duration is the median of so many successes."""

GRACE_SECONDS = 3.0
"""A listener that is gone for so long is not waited for: one person's looks at Airbyte cost little."""

_REFRESH_SECONDS = 0.25

HELP = (
    "Start a sync at Airbyte, by the listener's settings of it. If one of the connection runs already, that is taken. "
    "With --wait it waits for the end: told by the listener where there is one, and by looks at Airbyte otherwise."
)
EPILOG = (
    "  airbyte-events trigger 7b480e47-6992-5e8b-9c8a-acfd34a1b7bc --wait",
    "By name, for a script, at most half an hour:",
    "  airbyte-events trigger Orders --wait --timeout 30m --json && ./load",
    "Exit codes: 0 started, with --wait: succeeded; 1 failed, cancelled or an error; 2 wrong usage or settings; "
    "3 the time was up; 130 after Ctrl-C. In the last two cases the sync runs on.",
)


class JobType(StrEnum):
    """What a job can be started as."""

    SYNC = "sync"
    RESET = "reset"
    CLEAR = "clear"


def trigger(
    connection: Annotated[str, typer.Argument(metavar="CONNECTION", help="Its id, or its name in Airbyte.")],
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Until the job has ended.")] = False,
    timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="With --wait: not longer than 90s, 30m, 2h.")
    ] = None,
    job_type: Annotated[JobType, typer.Option(help="What to start. A reset or clear deletes data.")] = JobType.SYNC,
    instance: options.Instance = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> None:
    if timeout is not None and not wait:
        raise typer.BadParameter("goes with --wait", param_hint="--timeout")
    until = None if timeout is None else time.time() + options.seconds("--timeout", timeout)
    settings = load(config, listens=False)
    name, airbyte_settings = chosen(settings, instance, why="starts the sync at Airbyte itself")
    address = Address.of(settings, listener)
    output = Output(json=json)

    async def work() -> int:
        async with open_airbyte(airbyte_settings) as airbyte, open_listener(address) as asked:
            id_, label = await find_connection(airbyte, connection)
            submission = await submit(airbyte, id_, job_type.value, OnConflict.ATTACH)
            label = f"job {name}/{submission.job.job_id} of {label}"
            _tell(output, submission, label)
            if submission.how is How.IN_THE_WAY:
                return ENDED_OTHERWISE
            if not wait:
                if json:
                    output.object(_started(name, id_, submission))
                return SUCCEEDED
            waiting = Waiting(output, name, submission.job, label)
            await waiting.look_up_usual(airbyte, asked if address.token else None)
            return await waiting.run(airbyte, asked, settings, until)

    run(work)


def _tell(output: Output, submission: Submission, label: str) -> None:
    said = {
        How.STARTED: f"{label}: started",
        How.ATTACHED: f"{label}: it was running already, and is taken",
        How.FOUND: f"{label}: started; Airbyte's answer that said so was lost",
        How.IN_THE_WAY: f"{label}, a {submission.job.job_type}, is in the way: nothing was started",
    }[submission.how]
    if output.json or submission.how is How.IN_THE_WAY:
        output.say(said)
    else:
        output.line(said)


def _started(instance: str, connection_id: str, submission: Submission) -> dict[str, object]:
    job = submission.job
    return {
        "instance": instance,
        "job_id": job.job_id,
        "connection_id": job.connection_id or connection_id,
        "job_type": job.job_type,
        "status": job.status.value,
        "how": submission.how.value,
    }


class Waiting:
    """Waits for a job, and shows how far it is.

    :param label: what the job is called.
    """

    def __init__(self, output: Output, instance: str, job: Job, label: str) -> None:
        self.usual: float | None = None
        """Seconds that such jobs of the connection usually take."""
        self._output = output
        self._instance = instance
        self._job = job
        self._label = label

    async def look_up_usual(self, airbyte: AirbyteClient, listener: Listener | None) -> None:
        """Find out how long it usually takes, from the listener or else from Airbyte."""
        found: list[float] = []
        with contextlib.suppress(FeedError):
            found = [] if listener is None else await self._told_by(listener)
        if not found:
            with contextlib.suppress(AirbyteError), anyio.move_on_after(5):
                page = await airbyte.list_jobs(
                    connection_id=self._job.connection_id,
                    job_type=self._job.job_type,
                    status=JobStatus.SUCCEEDED,
                    limit=USUAL_OF,
                    order_by="createdAt|DESC",
                )
                found = [job.duration_seconds for job in page.jobs if job.duration_seconds is not None]
        self.usual = statistics.median(found) if found else None

    async def _told_by(self, listener: Listener) -> list[float]:
        asked = [
            ("instance", self._instance),
            ("connection_id", self._job.connection_id or ""),
            ("status", JobStatus.SUCCEEDED.value),
            ("limit", str(USUAL_OF)),
        ]
        jobs = (await listener.get("/v1/jobs", asked)).get("jobs")
        ended = [json_values.mapping(job) for job in jobs] if isinstance(jobs, list) else []
        same = [job for job in ended if job.get("job_type") in (None, self._job.job_type)]
        return [seconds for job in same if (seconds := json_values.seconds(job.get("duration_seconds"))) is not None]

    async def run(self, airbyte: AirbyteClient, listener: Listener, settings: Settings, until: float | None) -> int:
        """Wait for the end.

        :return: the exit code.
        """
        feed = listener.feed if listener.address.token else None
        if feed is None:
            self._output.say("no API token of a listener is known: asking Airbyte every few seconds")
        ticks = Ticks(unproven=settings.poll_interval)
        runs_on = f"it runs on: airbyte-events jobs show {self._instance}/{self._job.job_id}"
        event: JobEvent | None = None
        try:
            async with (
                Hub(airbyte, feed, instance=self._instance, ticks=ticks, grace=GRACE_SECONDS) as hub,
                self._shown(hub),
            ):
                try:
                    event = await hub.wait(self._job.job_id, connection_id=self._job.connection_id, until=until)
                except WaitTimeout as exc:
                    timeout = exc
        except anyio.get_cancelled_exc_class():
            self._output.say(f"{self._label}: {runs_on}")
            raise
        if event is None:
            self._output.say(f"{timeout}; {runs_on}")
            return TIMED_OUT
        self._end(event)
        return SUCCEEDED if event.status is JobStatus.SUCCEEDED else ENDED_OTHERWISE

    def _end(self, event: JobEvent) -> None:
        if self._output.json:
            self._output.object(event.data())
            return
        facts = [
            f"{amount(event.records)} records" if event.records is not None else "",
            duration(event.duration_seconds),
            str(event.error) if event.error else "",
        ]
        self._output.line(f"{self._label}:", status(event.status.value), *[fact for fact in facts if fact])

    @contextlib.asynccontextmanager
    async def _shown(self, hub: Hub) -> AsyncIterator[None]:
        """Show on a terminal how long it has taken, beside how long it usually takes."""
        console = self._output.aside
        if not console.is_terminal:
            usual = f", which usually takes {duration(self.usual)}" if self.usual else ""
            self._output.say(f"waiting for {self._label}{usual}")
            yield
            return
        # A narrow terminal cuts off what stands last.
        columns = (
            SpinnerColumn(),
            TextColumn("{task.fields[elapsed]}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.description}", markup=False),
        )
        with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
            task = progress.add_task(shown(self._label), total=self.usual, elapsed="")

            async def refresh() -> None:
                while True:
                    elapsed = self._elapsed()
                    progress.update(task, completed=elapsed, elapsed=self._said(elapsed, hub))
                    progress.refresh()
                    await anyio.sleep(_REFRESH_SECONDS)

            failure: Exception | None = None
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(refresh)
                try:
                    yield
                except Exception as exc:  # its own affair: a task group would wrap it
                    failure = exc
                tasks.cancel_scope.cancel()
            if failure is not None:
                raise failure

    def _elapsed(self) -> float:
        since = self._job.started_at
        return 0.0 if since is None else max(0.0, (utcnow() - since).total_seconds())

    def _said(self, elapsed: float, hub: Hub) -> str:
        usual = f" of usually {duration(self.usual)}" if self.usual else ""
        how = "told by the listener" if hub.following else "asking Airbyte"
        return f"{duration(elapsed)}{usual}, {how}"

"""``airbyte-events trigger``: starts a sync, and waits for its completion."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Annotated

import anyio
import typer
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from airbyte_events._utils.times import duration, utcnow
from airbyte_events._utils.until import until
from airbyte_events.airbyte import AirbyteClient, Job
from airbyte_events.airbyte.submission import How, OnConflict, Submission, submit
from airbyte_events.cli import options
from airbyte_events.cli.airbyte import choose_instance, find_connection, open_airbyte
from airbyte_events.cli.api_client import Address, open_listener
from airbyte_events.cli.options import choice, flag, option
from airbyte_events.cli.output import Output, amount, status
from airbyte_events.cli.runner import INTERRUPTED, TIMED_OUT, command
from airbyte_events.errors import AirbyteError, WaitTimeout
from airbyte_events.events import JobEvent, JobStatus, Progress, Usual
from airbyte_events.events.progress import USUAL_OF
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.hub import Hub
from airbyte_events.jobs import Refresh, RefreshMode
from airbyte_events.listener.settings import Settings, load
from airbyte_events.monitor.poller import Ticks

SUCCEEDED, ENDED_OTHERWISE = 0, 1

PROGRESS_SECONDS = 10.0
"""Seconds between two requests for the job's progress."""

_BAR_WIDTH = 16

GRACE_SECONDS = 3.0
"""Seconds without a listener until Airbyte is polled: few, as one person's polling costs little."""


class JobType(StrEnum):
    """The types of jobs that can be started."""

    SYNC = "sync"
    RESET = "reset"
    CLEAR = "clear"
    REFRESH = "refresh"


@command(
    "trigger",
    "  airbyte-events trigger 7b480e47-6992-5e8b-9c8a-acfd34a1b7bc --wait",
    "By name, for at most half an hour, in a script:",
    "  airbyte-events trigger Orders --wait --timeout 30m --json && ./load",
    codes={
        0: "started (with --wait: succeeded)",
        1: "failed, cancelled or an error",
        TIMED_OUT: "timed out, the sync keeps running",
        INTERRUPTED: "after Ctrl-C, a sync that has started keeps running",
    },
)
async def trigger(
    connection: Annotated[str, typer.Argument(metavar="CONNECTION", help="The connection's id, or its name.")],
    wait: Annotated[bool, flag("Wait until the job completes.", "--wait", "-w")] = False,
    timeout: Annotated[str | None, option("DURATION", "Longest time to wait, for example 90s, 30m or 2h.")] = None,
    job_type: Annotated[
        JobType, option("TYPE", f"{', '.join(JobType)}. A reset or clear deletes data.", parse=choice(JobType))
    ] = JobType.SYNC,
    refresh_mode: Annotated[
        RefreshMode | None,
        option(
            "MODE",
            "Mode of a refresh: merge keeps the previous records, truncate deletes them once it has succeeded.",
            parse=choice(RefreshMode),
        ),
    ] = None,
    stream: Annotated[list[str] | None, option("STREAM", "Stream to refresh. May be repeated. [default: all]")] = None,
    instance: options.Instance = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> int:
    """Start a sync in Airbyte. If the connection has an active one, attach to that. Airbyte's address and credentials
    are those of the listener's settings. With --wait, the command waits until the listener reports the completion.
    Without a listener, it polls Airbyte."""
    if timeout is not None and not wait:
        raise typer.BadParameter("needs --wait", param_hint="--timeout")
    for needing, given in (("--refresh-mode", refresh_mode), ("--stream", stream)):
        if given and job_type is not JobType.REFRESH:
            raise typer.BadParameter("needs --job-type refresh", param_hint=needing)
    refresh = Refresh(mode=refresh_mode or RefreshMode.MERGE, streams=tuple(stream or ()))
    deadline = None if timeout is None else time.time() + options.seconds("--timeout", timeout)
    settings = load(config, listens=False)
    name, airbyte_settings = choose_instance(settings, instance, why="starts the sync in Airbyte")
    address = Address.of(settings, listener)
    output = Output(json=json)
    async with open_airbyte(airbyte_settings) as airbyte, open_listener(address) as api:
        id_, label = await find_connection(airbyte, connection)
        submission = await submit(airbyte, id_, job_type.value, OnConflict.ATTACH, refresh=refresh)
        label = f"job {name}/{submission.job.job_id} of {label}"
        _report(output, submission, label)
        if submission.how is How.BLOCKED:
            return ENDED_OTHERWISE
        if not wait:
            if json:
                output.object(_started(name, id_, submission))
            return SUCCEEDED
        waiting = Waiting(output, name, submission.job, label)
        await waiting.look_up_usual(airbyte)
        return await waiting.run(airbyte, api if address.token else None, settings, deadline)


def _report(output: Output, submission: Submission, label: str) -> None:
    message = {
        How.STARTED: f"{label}: started",
        How.ATTACHED: f"{label}: attached, as it was active already",
        How.FOUND: f"{label}: started, though Airbyte's response was lost",
        How.BLOCKED: f"{label}, a {submission.job.job_type}, is active: nothing was started",
    }[submission.how]
    if output.json or submission.how is How.BLOCKED:
        output.note(message)
    else:
        output.line(message)


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


@dataclass(eq=False)
class Waiting:
    """Waits for a job, and shows the progress.

    :param label: the job, for people.
    :param usual: the medians of such jobs of the connection.
    """

    output: Output
    instance: str
    job: Job
    label: str
    usual: Usual | None = None
    _progress: Progress | None = field(default=None, init=False)

    async def look_up_usual(self, airbyte: AirbyteClient) -> None:
        with contextlib.suppress(AirbyteError), anyio.move_on_after(5):
            page = await airbyte.list_jobs(
                connection_id=self.job.connection_id,
                job_type=self.job.job_type,
                status=JobStatus.SUCCEEDED,
                limit=USUAL_OF,
                order_by="createdAt|DESC",
                once=True,
            )
            self.usual = Usual.of(page.jobs)

    async def run(
        self, airbyte: AirbyteClient, feed: FeedClient | None, settings: Settings, deadline: float | None
    ) -> int:
        """Wait for the completion.

        :return: the exit code.
        """
        if feed is None:
            self.output.note("no listener's API token is set: polling Airbyte every few seconds")
        ticks = Ticks(unproven=settings.poll_interval)
        runs_on = f"it keeps running: airbyte-events jobs show {self.instance}/{self.job.job_id}"
        try:
            async with Hub(airbyte, feed, instance=self.instance, ticks=ticks, grace=GRACE_SECONDS) as hub:
                with self._shown(hub):
                    async with until(partial(self._read_progress, hub)):
                        event = await hub.wait(self.job.job_id, connection_id=self.job.connection_id, until=deadline)
        except anyio.get_cancelled_exc_class():
            self.output.note(f"{self.label}: {runs_on}")
            raise
        except WaitTimeout as exc:
            self.output.note(f"timed out (--timeout): {exc}; {runs_on}")
            return TIMED_OUT
        self._end(event)
        return SUCCEEDED if event.status is JobStatus.SUCCEEDED else ENDED_OTHERWISE

    async def _read_progress(self, hub: Hub) -> None:
        """Read the progress for a terminal, until cancelled."""
        if not self.output.aside.is_terminal:
            await anyio.sleep_forever()
        pause = 1.0
        while True:
            await anyio.sleep(pause)
            pause = PROGRESS_SECONDS
            if (found := await hub.progress(self.job.job_id)) is not None:
                self._progress = replace(found, usual=self.usual or found.usual)

    def _end(self, event: JobEvent) -> None:
        if self.output.json:
            self.output.object(event.data())
            return
        facts = [
            f"{amount(event.records)} records" if event.records is not None else "",
            duration(event.duration_seconds),
            str(event.error) if event.error else "",
        ]
        self.output.line(Text(f"{self.label}: ") + status(event.status.value), *[fact for fact in facts if fact])

    @contextlib.contextmanager
    def _shown(self, hub: Hub) -> Iterator[None]:
        console = self.output.aside
        if not console.is_terminal:
            usual = f", which usually takes {duration(self._usual_seconds)}" if self._usual_seconds else ""
            self.output.note(f"waiting for {self.label}{usual}")
            yield
            return
        # The job is in the line above.
        draw = partial(self._line, hub, Spinner("dots", style="progress.spinner"), console.width - _BAR_WIDTH - 4)
        with Live(get_renderable=draw, console=console, transient=True, refresh_per_second=4):
            yield

    def _line(self, hub: Hub, spinner: Spinner, width: int) -> Table:
        """Return the spinner, a bar where a share is known, and a text of which a narrow terminal cuts off the end."""
        share, text = self._share(), Text(self._text(hub))
        text.truncate(max(width, 1), overflow="ellipsis")
        line = Table.grid(padding=(0, 1))
        line.add_row(spinner, None if share is None else ProgressBar(1, min(1, share), _BAR_WIDTH), text)
        return line

    @property
    def _usual_seconds(self) -> float | None:
        return None if self.usual is None else self.usual.duration_seconds

    @property
    def _elapsed(self) -> float:
        since = self.job.started_at
        return 0.0 if since is None else max(0.0, (utcnow() - since).total_seconds())

    def _share(self) -> float | None:
        """Return the share of the usual records, else bytes, else of the usual time."""
        share = None if self._progress is None else self._progress.share
        return self._elapsed / self._usual_seconds if share is None and self._usual_seconds else share

    def _text(self, hub: Hub) -> str:
        usual = f" of usually {duration(self._usual_seconds)}" if self._usual_seconds else ""
        how = "subscribed to the listener" if hub.following else "polling Airbyte"
        moved = "" if self._progress is None else self._progress.text()
        return ", ".join(filter(None, (f"{duration(self._elapsed)}{usual}", moved, how)))

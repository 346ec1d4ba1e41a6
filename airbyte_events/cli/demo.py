"""The demo: an Airbyte simulator, a listener and a client of its feed in one process, on free loopback ports."""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import anyio
import httpx
from pydantic import SecretStr
from rich.text import Text

from airbyte_events._utils.stdout import say
from airbyte_events._utils.times import format_time, parse_time, utcnow
from airbyte_events.airbyte import AirbyteClient, Credentials
from airbyte_events.cli.output import Output, status
from airbyte_events.cli.runner import INTERRUPTED
from airbyte_events.events import JobError, JobEvent, JobRef
from airbyte_events.feed.client import FeedClient
from airbyte_events.listener.assembly import Listener, assemble
from airbyte_events.listener.settings import InstanceSettings, Settings
from airbyte_events.listener.startup import dashboard_line
from airbyte_events.simulator import Script, Simulator, serve_simulator
from airbyte_events.store.memory.store import MemoryLocation
from airbyte_events.web.auth import new_token
from airbyte_events.web.server import serving

DEADLINE = 30.0

POLL_SECONDS = 3.0
"""Between polls. The jobs that Airbyte announces complete before the second one."""

RUN_SECONDS, START_SECONDS = (4.0, 9.0, 14.0), 4.0
"""Of the syncs of a demo that stays up: their durations, and the time from one start to the next, which leaves each
connection's sync the time to complete before its next one."""

_INSTANCE = "default"
_WRONG_PASSWORD = JobError(message="the password has expired", type="config_error", origin="destination")


STEPS = ("webhook_received", "confirmed", "published", "seen")
"""The steps of a completion: in the inbox, confirmed by the API, on the bus, at a client of the feed."""


@dataclass(slots=True, kw_only=True)
class DemoJob:
    """A job, and when its completion reached each step.

    :param status: the expected terminal status.
    :param times: by step, wall-clock times.
    :param reads: requests to Airbyte for this job alone.
    :param polls: lists of changed jobs while this job ran.
    """

    ref: JobRef
    name: str
    status: str
    ended_at: datetime | None = None
    times: dict[str, datetime | None] = field(default_factory=dict)
    event: JobEvent | None = None
    reads: int = 0
    polls: int = 0

    @property
    def arrived(self) -> bool:
        """Whether the client received the expected status."""
        return self.event is not None and self.event.status.value == self.status

    def steps(self) -> dict[str, float | None]:
        """Return the milliseconds from the completion to each step."""
        return {step: _milliseconds(self.ended_at, self.times.get(step)) for step in STEPS}

    def data(self) -> dict[str, Any]:
        event = self.event.data() if self.event is not None else {}
        return {
            "job_id": self.ref.job_id,
            "name": self.name,
            "status": event.get("status"),
            "origin": event.get("origin"),
            "error": event.get("error"),
            "ended_at": format_time(self.ended_at),
            "milliseconds": self.steps(),
            "requests": {"about_this_job": self.reads, "about_all_jobs": self.polls},
            "arrived": self.arrived,
        }

    def lines(self, event: JobEvent) -> list[Text]:
        """Return what a terminal of 80 columns shows of the completion."""
        steps = [f"{name.partition('_')[0]} {value:.0f}" for name, value in self.steps().items() if value is not None]
        return [
            Text(f"job {self.ref.job_id} ({self.name}) ")
            + status(event.status.value)
            + Text(f", detected by {event.origin.value}"),
            *([Text(f"  {event.error.message}", style="red")] if event.error else []),
            Text(f"  ms after completion: {', '.join(steps)}", style="dim"),
        ]

    def line(self, event: JobEvent) -> str:
        """Return the line of the completion in a pipe."""
        error = f": {event.error}" if event.error else ""
        steps = [f"{name.replace('_', ' ')} {value:.1f}" for name, value in self.steps().items() if value is not None]
        return (
            f"job {self.ref.job_id} ({self.name}) {event.status.value}{error}, detected by "
            f"{event.origin.value}; ms after its completion: {', '.join(steps)}; requests to Airbyte: "
            f"{self.reads} for the job, {self.polls} for all jobs"
        )


def run(*, as_json: bool, keep: bool = False) -> int:
    """Run the demo and write it to standard output.

    :param as_json: one object a line, for programs.
    :return: 0 if every completion arrived, or Ctrl-C ended a demo that stays up, else 1.
    """
    # uvicorn warns of Airbyte's offer to upgrade each request.
    logging.basicConfig(level=logging.ERROR)
    if keep and not as_json:
        say("This demo stays up after its first syncs. Ctrl-C stops it.")
    try:
        return anyio.run(partial(demonstrate, as_json=as_json, keep=keep))
    except KeyboardInterrupt:
        return 0 if keep else INTERRUPTED


async def demonstrate(deadline: float = DEADLINE, *, as_json: bool = False, keep: bool = False) -> int:
    """Run the demo.

    :param deadline: seconds until a missing completion counts as lost.
    :param keep: then run syncs until cancelled.
    :return: 0 if every completion arrived, else 1.
    """
    credentials = Credentials(client_id="demo", client_secret=new_token())
    api_token, webhook_token, began = new_token(), new_token(), anyio.current_time()
    simulator = Simulator(client_id=credentials.client_id, client_secret=credentials.client_secret)
    async with httpx.AsyncClient(trust_env=False) as http, serve_simulator(simulator):
        airbyte = AirbyteClient(http, simulator.url, credentials=credentials)
        secret = SecretStr(credentials.client_secret)
        instance = InstanceSettings(airbyte_url=simulator.url, client_id=credentials.client_id, client_secret=secret)
        settings = Settings(
            instances={_INSTANCE: instance},
            store=MemoryLocation(),
            api_tokens=[api_token],
            webhook_tokens=[webhook_token],
            poll_interval=POLL_SECONDS,
            poll_interval_proven=POLL_SECONDS,
            poll_interval_idle=POLL_SECONDS,
        )
        async with assemble(settings) as listener, serving(listener.app) as url:
            simulator.workspace.set_webhook(f"{url}/webhooks/{_INSTANCE}/{webhook_token}")
            demo = _Demo(simulator, listener, FeedClient(http, url, api_token), as_json, began)
            with anyio.move_on_after(deadline):
                await demo.start_syncs(airbyte)
                if not as_json:
                    say(f"Airbyte simulator: {simulator.url}, listener: {url}", f"{len(demo.jobs)} syncs run.")
                await demo.follow()
            if keep:
                demo.summarise()
                link = dashboard_line(url, listener.sessions.new_code())
                say(json.dumps({"dashboard": link.split()[1]}) if as_json else link)
                await demo.run_syncs(airbyte)
    demo.summarise()
    return 0 if demo.jobs and all(job.arrived for job in demo.jobs.values()) else 1


@dataclass(eq=False)
class _Demo:
    """:param listener: its bus shows when an event is published, before any client has it.
    :param began: when the demo began, by the event loop's clock.
    """

    simulator: Simulator
    listener: Listener
    client: FeedClient
    as_json: bool
    began: float
    jobs: dict[int, DemoJob] = field(default_factory=dict)
    output: Output = field(default_factory=Output)

    def summarise(self) -> None:
        if not self.as_json:
            say(*_summary(list(self.jobs.values()), anyio.current_time() - self.began))
            return
        for job in self.jobs.values():
            if job.event is None:
                say(json.dumps(job.data()))

    def _show(self, job: DemoJob, event: JobEvent) -> None:
        if self.as_json:
            say(json.dumps(job.data()))
        elif self.output.terminal:
            for line in job.lines(event):
                self.output.line(line)
        else:
            say(job.line(event))

    async def start_syncs(self, airbyte: AirbyteClient) -> None:
        scripts = {
            "orders": Script.lasting(1.0),
            "customers": Script.lasting(1.2),
            "invoices": Script.lasting(1.4),
            "stock": replace(Script.lasting(1.6, end="failed"), error=_WRONG_PASSWORD),
            "clicks": replace(Script.hanging(), end=None),
        }
        for name, script in scripts.items():
            connection = self.simulator.world.add_connection(script, name=name)
            job = await airbyte.create_job(connection.id)
            status = script.end or "cancelled"
            self.jobs[job.job_id] = DemoJob(ref=JobRef(_INSTANCE, job.job_id), name=name, status=status)

    async def run_syncs(self, airbyte: AirbyteClient) -> None:
        """Start a sync of one connection after the other, until cancelled."""
        connections = itertools.cycle(self.simulator.world.connections.values())
        for connection, seconds in zip(connections, itertools.cycle(RUN_SECONDS), strict=False):
            script = connection.script
            connection.script = replace(script, phases=Script.lasting(seconds).phases, end=script.end or "cancelled")
            await airbyte.create_job(connection.id)
            await anyio.sleep(START_SECONDS)

    async def follow(self) -> None:
        async with self.client.stream() as frames, anyio.create_task_group() as tasks:
            tasks.start_soon(self._note_published)
            # First the stream, then the states: a completion in between is on the stream.
            await self.client.watch([job.ref for job in self.jobs.values()])
            tasks.start_soon(self._cancel_one)
            async for frame in frames:
                if frame.event is not None and frame.event.terminal:
                    await self._note_seen(frame.event)
                if all(job.event for job in self.jobs.values()):
                    break
            tasks.cancel_scope.cancel()

    async def _cancel_one(self) -> None:
        await anyio.sleep(1.8)
        for job_id, job in self.jobs.items():
            if job.status == "cancelled":
                # As by a user in Airbyte's pages.
                self.simulator.world.end_job(self.simulator.world.jobs[job_id], "cancelled")

    async def _note_published(self) -> None:
        with self.listener.bus.subscribe() as events:
            async for event in events:
                if event.terminal and (job := self.jobs.get(event.ref.job_id)) is not None:
                    job.times["published"] = utcnow()

    async def _note_seen(self, event: JobEvent) -> None:
        job = self.jobs.get(event.ref.job_id)
        if job is None or job.event is not None:
            return
        job.event = event
        job.times |= {"seen": utcnow(), "confirmed": event.observed_at}
        ended = self.simulator.world.jobs[event.ref.job_id]
        job.ended_at = ended.ended_at
        inbox = await self.client.request("GET", "/v1/notifications")
        received = [each["received_at"] for each in inbox["notifications"] if each["job_id"] == event.ref.job_id]
        job.times["webhook_received"] = parse_time(received[-1]) if received else None
        job.reads = sum(1 for _ in self.simulator.traffic.recent("GET /jobs/{id}", event.ref.job_id))
        job.polls = sum(1 for call in self.simulator.traffic.recent("GET /jobs") if call.at >= ended.created_at)
        self._show(job, event)


def _summary(jobs: list[DemoJob], seconds: float) -> list[str]:
    lines = [f"{sum(job.arrived for job in jobs)} of {len(jobs)} completions arrived, in {seconds:.1f} s."]
    if any(job.arrived and job.status == "cancelled" for job in jobs):
        lines.append(f"Airbyte sends no webhook for a cancelled job: polling finds it, here every {POLL_SECONDS:g} s.")
    return lines + [f"Not arrived: job {job.ref.job_id} ({job.name})." for job in jobs if not job.arrived]


def _milliseconds(since: datetime | None, until: datetime | None) -> float | None:
    return None if since is None or until is None else round((until - since).total_seconds() * 1000, 3)

"""See it work: a simulated Airbyte, a listener and a client of its feed in one process, on free loopback ports."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import httpx
from pydantic import SecretStr
from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.table import Table

from airbyte_events._utils.stdout import say
from airbyte_events._utils.times import format_time, parse_time, utcnow
from airbyte_events.airbyte import AirbyteClient, Credentials
from airbyte_events.events import JobError, JobEvent, JobRef
from airbyte_events.feed.client import FeedClient
from airbyte_events.listener.assembly import Listener, assemble
from airbyte_events.listener.settings import InstanceSettings, Settings, StoreLocation
from airbyte_events.simulator import Script, Simulator, serve_simulator
from airbyte_events.web.auth import new_token
from airbyte_events.web.server import serving

if TYPE_CHECKING:
    pass

DEADLINE = 30.0

POLL_SECONDS = 3.0
"""Between looks; the jobs that Airbyte announces end before the second one."""

_INSTANCE = "default"
_WRONG_PASSWORD = JobError(message="the password has expired", type="config_error", origin="destination")


@dataclass(slots=True, kw_only=True)
class Followed:
    """A job and what became of its end. Times are wall-clock times, None until then.

    :param status: how it is meant to end.
    :param received_at: when the listener had its webhook.
    :param published_at: when it was on the bus.
    :param seen_at: when a client of the feed had it.
    :param reads: requests to Airbyte that were about this job alone.
    :param looks: requests to Airbyte that were about all jobs, while this one was followed.
    """

    ref: JobRef
    name: str
    status: str
    ended_at: datetime | None = None
    received_at: datetime | None = None
    event: JobEvent | None = None
    published_at: datetime | None = None
    seen_at: datetime | None = None
    reads: int = 0
    looks: int = 0

    @property
    def arrived(self) -> bool:
        """Its end was seen, and is what it was."""
        return self.event is not None and self.seen_at is not None and self.event.status.value == self.status

    def steps(self) -> dict[str, float | None]:
        """Milliseconds from its end to each step."""
        confirmed_at = None if self.event is None else self.event.observed_at
        times = (self.received_at, confirmed_at, self.published_at, self.seen_at)
        names = ("webhook_received", "confirmed", "published", "seen")
        return {name: _milliseconds(self.ended_at, time) for name, time in zip(names, times, strict=True)}

    def data(self) -> dict[str, Any]:
        """All of it as JSON values."""
        event = self.event.data() if self.event is not None else {}
        return {
            "job_id": self.ref.job_id,
            "name": self.name,
            "status": event.get("status"),
            "origin": event.get("origin"),
            "error": event.get("error"),
            "ended_at": format_time(self.ended_at),
            "milliseconds": self.steps(),
            "requests": {"about_this_job": self.reads, "about_all_jobs": self.looks},
            "arrived": self.arrived,
        }


class Screen(Protocol):
    """Where the demo is shown."""

    def begin(self, airbyte: str, listener: str, jobs: Sequence[Followed]) -> None:
        """The jobs run."""

    def arrived(self, job: Followed) -> None:
        """A job's end was seen."""

    def end(self, jobs: Sequence[Followed], seconds: float) -> None:
        """All is over."""


def run(*, as_json: bool) -> int:
    """Run the demo and show it on standard output.

    :param as_json: one object a line, for programs.
    :return: 0 if every job's end arrived, else 1.
    """
    # What uvicorn says of Airbyte's offers to upgrade each request is no news.
    logging.basicConfig(level=logging.ERROR)
    console = Console()
    if as_json:
        return anyio.run(demonstrate, JSONLines())
    if not console.is_terminal:
        return anyio.run(demonstrate, Lines())
    with Live(console=console, auto_refresh=False) as live:
        return anyio.run(demonstrate, LiveTable(live))


async def demonstrate(screen: Screen, deadline: float = DEADLINE) -> int:
    """Run the demo on that screen.

    :param deadline: seconds until an end that has not arrived counts as lost.
    :return: 0 if every job's end arrived, else 1.
    """
    credentials = Credentials(client_id="demo", client_secret=new_token())
    api_token, webhook_token = new_token(), new_token()
    began = anyio.current_time()
    async with httpx.AsyncClient(trust_env=False) as http, _simulator(credentials) as simulator:
        airbyte = AirbyteClient(http, simulator.url, credentials=credentials)
        secret = SecretStr(credentials.client_secret)
        instance = InstanceSettings(airbyte_url=simulator.url, client_id=credentials.client_id, client_secret=secret)
        settings = Settings(
            instances={_INSTANCE: instance},
            store=StoreLocation(kind="memory"),
            api_tokens=[api_token],
            webhook_tokens=[webhook_token],
            poll_interval=POLL_SECONDS,
            poll_interval_proven=POLL_SECONDS,
            poll_interval_idle=POLL_SECONDS,
        )
        async with assemble(settings) as listener, serving(listener.app) as url:
            simulator.workspace.set_webhook(f"{url}/webhooks/{_INSTANCE}/{webhook_token}")
            demo = _Demo(simulator, listener, http, FeedClient(http, url, api_token), api_token, screen)
            with anyio.move_on_after(deadline):
                await demo.run(airbyte)
    jobs = list(demo.jobs.values())
    screen.end(jobs, anyio.current_time() - began)
    return 0 if jobs and all(job.arrived for job in jobs) else 1


class _Demo:
    """:param listener: whose bus tells when an event is published, before any client has it."""

    def __init__(
        self,
        simulator: Simulator,
        listener: Listener,
        http: httpx.AsyncClient,
        client: FeedClient,
        api_token: str,
        screen: Screen,
    ) -> None:
        self.jobs: dict[int, Followed] = {}
        self._simulator = simulator
        self._listener = listener
        self._http = http
        self._client = client
        self._headers = {"Authorization": f"Bearer {api_token}"}
        self._screen = screen

    async def run(self, airbyte: AirbyteClient) -> None:
        """Start syncs and follow them until all have ended."""
        async with self._client.stream() as frames, anyio.create_task_group() as tasks:
            tasks.start_soon(self._note_published)
            await self._start_syncs(airbyte)
            # Joined the stream, now the states; what happens from here on is on the stream.
            await self._client.watch([job.ref for job in self.jobs.values()])
            self._screen.begin(self._simulator.url, self._client.url, list(self.jobs.values()))
            tasks.start_soon(self._cancel_one)
            async for frame in frames:
                if frame.event is not None and frame.event.terminal:
                    await self._note_seen(frame.event)
                if all(job.seen_at for job in self.jobs.values()):
                    break
            tasks.cancel_scope.cancel()

    async def _start_syncs(self, airbyte: AirbyteClient) -> None:
        scripts = {
            "orders": Script.lasting(1.0),
            "customers": Script.lasting(1.2),
            "invoices": Script.lasting(1.4),
            "stock": replace(Script.lasting(1.6, end="failed"), error=_WRONG_PASSWORD),
            "clicks": replace(Script.hanging(), end=None),
        }
        for name, script in scripts.items():
            connection = self._simulator.world.add_connection(script, name=name)
            job = await airbyte.create_job(connection.id)
            status = script.end or "cancelled"
            self.jobs[job.job_id] = Followed(ref=JobRef(_INSTANCE, job.job_id), name=name, status=status)

    async def _cancel_one(self) -> None:
        await anyio.sleep(1.8)
        for job_id, followed in self.jobs.items():
            if followed.status == "cancelled":
                # As somebody does on Airbyte's own pages.
                self._simulator.world.end_job(self._simulator.world.jobs[job_id], "cancelled")

    async def _note_published(self) -> None:
        with self._listener.bus.subscribe() as events:
            async for event in events:
                if event.terminal and (job := self.jobs.get(event.ref.job_id)) is not None:
                    job.published_at = utcnow()

    async def _note_seen(self, event: JobEvent) -> None:
        job = self.jobs.get(event.ref.job_id)
        if job is None or job.seen_at is not None:
            return
        job.seen_at = utcnow()
        job.event = event
        ended = self._simulator.world.jobs[event.ref.job_id]
        job.ended_at = ended.ended_at
        inbox = (await self._http.get(f"{self._client.url}/v1/notifications", headers=self._headers)).json()
        received = [each["received_at"] for each in inbox["notifications"] if each["job_id"] == event.ref.job_id]
        job.received_at = parse_time(received[-1]) if received else None
        job.reads = sum(1 for _ in self._simulator.traffic.recent("GET /jobs/{id}", event.ref.job_id))
        job.looks = sum(1 for call in self._simulator.traffic.recent("GET /jobs") if call.at >= ended.created_at)
        self._screen.arrived(job)


class JSONLines:
    """A JSON object for each job, for programs."""

    def begin(self, airbyte: str, listener: str, jobs: Sequence[Followed]) -> None:
        pass

    def arrived(self, job: Followed) -> None:
        say(json.dumps(job.data()))

    def end(self, jobs: Sequence[Followed], seconds: float) -> None:
        for job in jobs:
            if job.seen_at is None:
                say(json.dumps(job.data()))


class Lines:
    """A line for each job, for pipes."""

    def begin(self, airbyte: str, listener: str, jobs: Sequence[Followed]) -> None:
        say(_introduction(airbyte, listener, jobs))

    def arrived(self, job: Followed) -> None:
        steps = [f"{name.replace('_', ' ')} {_shown(value)} ms" for name, value in job.steps().items() if value]
        say(
            f"job {job.ref.job_id} ({job.name}) {_outcome(job)}, learnt by {_origin(job)}; after its end: "
            f"{', '.join(steps)}; requests: {job.reads} for it, {job.looks} for all jobs"
        )

    def end(self, jobs: Sequence[Followed], seconds: float) -> None:
        say("\n".join(_summary(jobs, seconds)))


class LiveTable:
    """A table that fills, for terminals."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._jobs: Sequence[Followed] = ()

    def begin(self, airbyte: str, listener: str, jobs: Sequence[Followed]) -> None:
        self._live.console.print(_introduction(airbyte, listener, jobs), highlight=False)
        self._jobs = jobs
        self._draw()

    def arrived(self, job: Followed) -> None:
        self._draw()

    def end(self, jobs: Sequence[Followed], seconds: float) -> None:
        self._draw()
        self._live.stop()
        lines = _summary(jobs, seconds)
        lines += [f"Job {job.ref.job_id} {_outcome(job)}." for job in jobs if job.event is not None and job.event.error]
        lines.append("Requests to Airbyte: those for one job + those for all jobs at once.")
        self._live.console.print("\n".join(lines), highlight=False, markup=False)

    def _draw(self) -> None:
        table = Table(box=SIMPLE, title="Milliseconds from a job's end", title_style="bold")
        table.add_column("job", no_wrap=True)
        table.add_column("outcome", no_wrap=True)
        for heading in ("webhook", "confirmed", "published", "seen", "requests"):
            table.add_column(heading, justify="right", no_wrap=True)
        for job in self._jobs:
            status, color = "running", "dim"
            if job.event is not None:
                status = job.event.status.value
                color = {"succeeded": "green", "failed": "red"}.get(status, "yellow")
            steps = [_shown(value) for value in job.steps().values()]
            requests = f"{job.reads} + {job.looks}" if job.event is not None else ""
            table.add_row(f"{job.ref.job_id} {job.name}", f"[{color}]{status}[/]", *steps, requests)
        self._live.update(table, refresh=True)


def _introduction(airbyte: str, listener: str, jobs: Sequence[Followed]) -> str:
    return f"A simulated Airbyte at {airbyte}, a listener at {listener}; {len(jobs)} syncs run."


def _outcome(job: Followed) -> str:
    if job.event is None:
        return "runs"
    return job.event.status.value + (f": {job.event.error}" if job.event.error else "")


def _origin(job: Followed) -> str:
    return job.event.origin.value if job.event is not None else "nobody"


def _summary(jobs: Sequence[Followed], seconds: float) -> list[str]:
    lines = [f"{sum(job.arrived for job in jobs)} of {len(jobs)} ends arrived, in {seconds:.1f} s."]
    if any(job.arrived and job.status == "cancelled" for job in jobs):
        lines.append(
            f"Airbyte sends no webhook for a cancelled job: a look at all jobs finds it, here every {POLL_SECONDS:g} s."
        )
    return lines + [f"Not arrived: job {job.ref.job_id} ({job.name})." for job in jobs if not job.arrived]


def _shown(milliseconds: float | None) -> str:
    if milliseconds is None:
        return ""
    return f"{milliseconds:.1f}" if milliseconds < 100 else f"{milliseconds:.0f}"


def _milliseconds(since: datetime | None, until: datetime | None) -> float | None:
    return None if since is None or until is None else round((until - since).total_seconds() * 1000, 3)


@asynccontextmanager
async def _simulator(credentials: Credentials) -> AsyncIterator[Simulator]:
    simulator = Simulator(client_id=credentials.client_id, client_secret=credentials.client_secret)
    async with serve_simulator(simulator):
        yield simulator

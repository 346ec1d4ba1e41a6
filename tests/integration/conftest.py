"""Two small programs on real sockets, for either event loop: an Airbyte that fails on demand, and a listener's feed
that says what it is told to say. And, for asyncio, a simulator with a real listener."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream, TaskGroup, TaskStatus
from pydantic import SecretStr

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.airbyte import AirbyteClient, Credentials
from airbyte_events.airbyte.notifications import parse
from airbyte_events.events import Cursor, JobEvent, JobRef, Origin, parse_status
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.hub import Hub
from airbyte_events.listener.assembly import assemble
from airbyte_events.listener.settings import InstanceSettings, Settings, StoreLocation
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.monitor.poller import Ticks
from airbyte_events.simulator import Fault, Script, Simulator, serve_simulator
from airbyte_events.simulator.state import Job
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import Outcome, StoredNotification
from airbyte_events.web.server import serving
from support.clients import client_of

CONNECTION = "5f0c3d52-8f27-4a5e-9f7e-0d3c6a1b2c3d"
CLIENT_SECRET = "client-secret-0123456789abcdef"
API_TOKEN = "api-token-0123456789abcdef012345"
WEBHOOK_TOKEN = "webhook-token-0123456789abcdef01"


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass
class Program:
    """What all the small servers do: read requests, keep them, answer each, one connection per request.

    :param url: its address, without a path.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    came: anyio.Event = field(default_factory=anyio.Event)

    async def answer(self, request: Request, stream: SocketStream) -> None:
        raise NotImplementedError

    def count(self, method: str, path: str) -> int:
        """Requests whose path matches the pattern."""
        return sum(each.method == method and re.fullmatch(path, each.path) is not None for each in self.requests)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when it holds, which an answer can bring about a moment after it was sent."""
        with anyio.fail_after(5):
            while not condition():
                with anyio.move_on_after(0.02):
                    await self.came.wait()

    async def handle(self, stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                request = await _read(stream)
                self.requests.append(request)
                try:
                    await self.answer(request, stream)
                finally:
                    self.came.set()
                    self.came = anyio.Event()


async def _read(stream: SocketStream) -> Request:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += await stream.receive()
    url = urlsplit(target)
    return Request(method, url.path, parse_qs(url.query), headers, body)


async def reply(stream: SocketStream, status: int, content: Any = None, **headers: str) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"] + [f"{name}: {value}" for name, value in fields.items()]
    await stream.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)


def problem(status: int, kind: str) -> dict[str, Any]:
    return {"title": kind, "status": status, "type": f"https://reference.airbyte.com/reference/errors#{kind}"}


@asynccontextmanager
async def serve(program: Program, port: int = 0) -> AsyncIterator[None]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    program.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, program.handle)
        yield
        tasks.cancel_scope.cancel()


@dataclass
class Airbyte(Program):
    """The two calls of the public API that tell of jobs.

    :param jobs: in the order of their creation, with the time of their last change on Airbyte's own clock.
    :param ahead: how far Airbyte's clock is ahead of ours.
    :param faults: by ``list``, ``refresh`` (a list of those) or job id: a status to answer with, or ``hang``.
    :param hidden: jobs that lists leave out.
    :param hides_refreshes: lists without a type leave out refreshes, as up to Airbyte 2.0.
    :param unready: jobs that are not there for the first who asks for them.
    :param held: answers wait for this.
    """

    jobs: dict[int, dict[str, Any]] = field(default_factory=dict)
    changed: dict[int, datetime] = field(default_factory=dict)
    ahead: timedelta = timedelta(0)
    faults: dict[str | int, int | str] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    hides_refreshes: bool = False
    unready: set[int] = field(default_factory=set)
    held: anyio.Event | None = None
    dated: bool = True

    def now(self) -> datetime:
        return utcnow() + self.ahead

    def put(
        self,
        job_id: int,
        status: str = "running",
        *,
        job_type: str = "sync",
        connection_id: str = CONNECTION,
        ago: float = 0,
        **fields: Any,
    ) -> None:
        """Create a job or change it, that many seconds ago."""
        at = self.now() - timedelta(seconds=ago)
        job = self.jobs.setdefault(
            job_id,
            {"jobId": job_id, "jobType": job_type, "connectionId": connection_id, "startTime": at.isoformat()},
        )
        job |= {"status": status, **fields}
        if parse_status(status).terminal:
            job.setdefault("lastUpdatedAt", at.isoformat())
        self.changed[job_id] = at

    @property
    def lists(self) -> int:
        """Of what has changed, of any type."""
        return len(self._lists(lambda query: "updatedAtStart" in query and "jobType" not in query))

    @property
    def refresh_lists(self) -> int:
        """Whatever was asked for refreshes' sake."""
        return len(self._lists(lambda query: "updatedAtStart" not in query or "jobType" in query))

    def _lists(self, which: Callable[[dict[str, list[str]]], bool]) -> list[Request]:
        return [each for each in self.requests if each.path == "/api/public/v1/jobs" and which(each.query)]

    @property
    def reads(self) -> int:
        return self.count("GET", "/api/public/v1/jobs/[0-9]+")

    def reads_of(self, job_id: int) -> int:
        return self.count("GET", f"/api/public/v1/jobs/{job_id}")

    async def answer(self, request: Request, stream: SocketStream) -> None:
        if self.held is not None:
            await self.held.wait()
        tail = request.path.rpartition("/")[2]
        what = "refresh" if "jobType" in request.query else "list"
        fault = self.faults.get("all") or self.faults.get(int(tail) if tail.isdigit() else what)
        if fault == "hang":
            await stream.receive()
        elif fault == "proxy":
            await reply(stream, 404, b"<html>default backend - 404</html>", Content_Type="text/html")
        elif isinstance(fault, int):
            await reply(stream, fault, problem(fault, "a-fault"))
        elif not tail.isdigit():
            await self._list(request, stream)
        elif int(tail) in self.jobs and int(tail) not in self.unready:
            await reply(stream, 200, self.jobs[int(tail)])
        else:
            self.unready.discard(int(tail))
            await reply(stream, 409, problem(409, "state-conflict"))

    async def _list(self, request: Request, stream: SocketStream) -> None:
        updated, created = (
            datetime.fromisoformat(request.query.get(name, ["2000-01-01T00:00:00Z"])[0])
            for name in ("updatedAtStart", "createdAtStart")
        )
        offset, limit = (int(request.query[name][0]) for name in ("offset", "limit"))
        types = request.query.get("jobType", {job["jobType"] for job in self.jobs.values()} - self._hidden_types)
        found = [
            job
            for id_, job in self.jobs.items()
            if self.changed[id_] >= updated
            and datetime.fromisoformat(job["startTime"]) >= created
            and job["jobType"] in types
            and id_ not in self.hidden
        ]
        page = found[offset : offset + limit]
        dates = {"Date": format_datetime(self.now().astimezone(UTC), usegmt=True)} if self.dated else {}
        # As Airbyte's own link: on every page, without the filters, on a host that is not there.
        await reply(stream, 200, {"data": page, "next": "http://internal.invalid:1/jobs?offset=0"}, **dates)

    @property
    def _hidden_types(self) -> set[str]:
        return {"refresh"} if self.hides_refreshes else set()


@dataclass
class Listener(Program):
    """A listener's feed and watches, which says what it is told to say.

    :param states: what it tells of jobs that are to be watched.
    :param unknown: the jobs that it says Airbyte does not have.
    :param faults: by path: a status to answer with.
    :param held: answers to watches wait for this.
    :param hello: what streams begin with, after the HTTP head; None: nothing at all.
    """

    epoch: str = "e1"
    sequence: int = 0
    states: dict[int, JobEvent] = field(default_factory=dict)
    unknown: set[int] = field(default_factory=set)
    faults: dict[str, int] = field(default_factory=dict)
    held: anyio.Event | None = None
    hello: bytes | None = b""
    streams: list[SocketStream] = field(default_factory=list)
    closers: list[anyio.Event] = field(default_factory=list)

    def frame(self, name: str, data: Any = None, id: str | None = "") -> bytes:
        place = "" if id is None else f"id: {id or Cursor(self.epoch, self.sequence)}\n"
        return f"event: {name}\n{place}data: {json.dumps(data or {})}\n\n".encode()

    def job(self, event: JobEvent) -> bytes:
        self.sequence += 1
        stored = JobEvent.from_data(event.data(), Cursor(self.epoch, self.sequence))
        return self.frame("job", stored.envelope(self.url))

    async def say(self, data: bytes) -> None:
        for stream in self.streams:
            await stream.send(data)

    def hang_up(self) -> None:
        for closer in self.closers:
            closer.set()

    @property
    def watched(self) -> list[list[int]]:
        """The jobs of each call."""
        bodies = [json.loads(each.body) for each in self.requests if each.path == "/v1/watches"]
        return [[job["job_id"] for job in body["jobs"]] for body in bodies]

    async def answer(self, request: Request, stream: SocketStream) -> None:
        if request.path in self.faults:
            await reply(stream, self.faults[request.path], {"error": "a fault"})
        elif request.path == "/v1/watches":
            if self.held is not None:
                await self.held.wait()
            refs = [(job["instance"], job["job_id"]) for job in json.loads(request.body)["jobs"]]
            states = [self.states[job_id].data() for _, job_id in refs if job_id in self.states]
            unknown = [{"instance": name, "job_id": job_id} for name, job_id in refs if job_id in self.unknown]
            await reply(stream, 200, {"jobs": states, "unknown": unknown, "cursor": "e1-0"})
        else:
            await self._stream(stream)

    async def _stream(self, stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        if self.hello is not None:
            await stream.send(self.hello or self.frame("hello", {"epoch": self.epoch}))
        closer = anyio.Event()
        self.streams.append(stream)
        self.closers.append(closer)
        try:
            # Those who wait for the stream to be there.
            self.came.set()
            self.came = anyio.Event()
            await closer.wait()
        finally:
            self.streams.remove(stream)
            self.closers.remove(closer)


@pytest.fixture
async def http(anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        yield client


@pytest.fixture
async def airbyte(anyio_backend: str) -> AsyncIterator[Airbyte]:
    program = Airbyte()
    async with serve(program):
        yield program


@pytest.fixture
async def feed(anyio_backend: str) -> AsyncIterator[Listener]:
    program = Listener()
    async with serve(program):
        yield program


@dataclass
class Watched:
    """A monitor of the small Airbyte, with what its store has."""

    airbyte: Airbyte
    monitor: Monitor
    store: MemoryStore

    async def events(self) -> list[tuple[int, str]]:
        page = await self.store.read(0, limit=10_000)
        return [(event.ref.job_id, event.status.value) for event in page.events]

    async def ends(self, job_id: int) -> int:
        ended = ("succeeded", "failed", "cancelled")
        return sum(id_ == job_id and status in ended for id_, status in await self.events())

    async def state(self, job_id: int) -> JobEvent:
        ref = JobRef(self.monitor.instance, job_id)
        return (await self.store.states([ref]))[ref]

    async def until_ended(self, *job_ids: int) -> None:
        with anyio.fail_after(5):
            position = 0
            left = set(job_ids)
            while left:
                await self.store.changed(position)
                page = await self.store.read(position)
                position = page.position
                left -= {event.ref.job_id for event in page.events if event.terminal}

    async def receive(self, body: bytes, *, age: float = 0) -> StoredNotification:
        """A notification comes, as the receiver keeps it."""
        notification = parse(body)
        receipt = await self.store.receive(
            instance=self.monitor.instance,
            body=body,
            kind=notification.kind.value,
            job_id=notification.job_id,
            outcome=Outcome.PENDING,
            received_at=utcnow() - timedelta(seconds=age),
        )
        return (await self.store.notifications(limit=1, before=receipt.id + 1))[0]

    async def outcome(self, stored: StoredNotification) -> Outcome:
        return (await self.store.notifications(limit=1, before=stored.id + 1))[0].outcome

    async def until_settled(self, *all_stored: StoredNotification) -> None:
        with anyio.fail_after(5):
            for stored in all_stored:
                while await self.outcome(stored) is Outcome.PENDING:
                    await anyio.lowlevel.checkpoint()


@pytest.fixture
async def watched(airbyte: Airbyte, http: httpx.AsyncClient) -> Watched:
    store = MemoryStore()
    return Watched(airbyte, Monitor("default", client_of(http, airbyte.url), store), store)


def body(job_id: int | None, success: bool = True, *, title: str | None = None, **data: Any) -> bytes:
    """A webhook's body, of a job that was created and ended just now unless it says otherwise."""
    now = utcnow()
    headline = title or ("Sync completed" if success else "Sync failure occurred")
    about = {
        "workspace": {"id": "w1", "name": "Team"},
        "connection": {"id": CONNECTION, "name": "orders", "url": "https://airbyte.example.com/c/1"},
        "jobId": job_id,
        "startedAt": format_time(now),
        "finishedAt": format_time(now),
        "success": success,
        "recordsCommitted": 45,
        "bytesCommitted": 90,
        "durationInSeconds": 3600,
        "errorMessage": None if success else "no such table",
        "errorType": None if success else "config_error",
        "errorOrigin": None if success else "destination",
    }
    text = f"{headline}: <https://airbyte.example.com|orders>"
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]
    return json.dumps({"text": text, "blocks": blocks, "data": about | data}).encode()


def event_of(job_id: int, status: str = "succeeded", connection_id: str | None = CONNECTION) -> JobEvent:
    return JobEvent(
        ref=JobRef("default", job_id),
        status=parse_status(status),
        observed_at=utcnow(),
        origin=Origin.WEBHOOK,
        connection_id=connection_id,
        job_type="sync",
    )


@dataclass(kw_only=True)
class Running:
    """A listener in a task of its own."""

    url: str
    stopping: anyio.Event
    stopped: anyio.Event

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def stop(self) -> None:
        self.stopping.set()
        with anyio.fail_after(5):
            await self.stopped.wait()


@dataclass(kw_only=True)
class Stage:
    """A simulator, where listeners can be started and stopped."""

    sim: Simulator
    connection_id: str
    http: httpx.AsyncClient

    @property
    def airbyte(self) -> AirbyteClient:
        credentials = Credentials(client_id="client", client_secret=CLIENT_SECRET)
        return client_of(self.http, self.sim.url, credentials=credentials)

    def start(self, count: int = 1, job_type: str = "sync", script: Script | None = None) -> list[Job]:
        """Jobs, each of a connection of its own."""
        world = self.sim.world
        connections = [world.add_connection(script or Script.hanging()) for _ in range(count)]
        return [world.start_job(connection, job_type) for connection in connections]

    def end(self, jobs: Iterable[Job], status: str = "succeeded") -> None:
        for job in jobs:
            self.sim.world.end_job(job, status)

    def fault(self, kind: str, **values: Any) -> None:
        self.sim.add_fault(Fault(kind=kind, **values))

    def count(self, route: str) -> int:
        return self.sim.traffic.counts[route]

    def reads(self, job: Job) -> int:
        """Requests for that job alone that were answered."""
        return sum(each.status is not None for each in self.sim.traffic.recent("GET /jobs/{id}", job.id))

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(10):
            while not condition():
                await anyio.lowlevel.checkpoint()

    async def ready(self, hub: Hub) -> None:
        """Returns when the hub follows a listener that has had its first look."""
        await self.until(lambda: hub.following and any(each.status for each in self.sim.traffic.recent("GET /jobs")))

    def feed(self, url: str, token: str = API_TOKEN, **options: Any) -> FeedClient:
        return FeedClient(self.http, url, token, **options)

    @asynccontextmanager
    async def listener(
        self, *, port: int = 0, secret: str = CLIENT_SECRET, webhooks: bool = True, **given: Any
    ) -> AsyncIterator[str]:
        """A listener that hardly polls; its address."""
        instance = InstanceSettings(airbyte_url=self.sim.url, client_id="client", client_secret=SecretStr(secret))
        settings = Settings(
            **{
                "instances": {"default": instance},
                "store": StoreLocation(kind="memory"),
                "api_tokens": [API_TOKEN],
                "webhook_tokens": [WEBHOOK_TOKEN],
                "poll_interval": 3600,
            }
            | given
        )
        async with (
            assemble(settings) as listener,
            serving(listener.app, port=port, timeout_graceful_shutdown=1) as url,
        ):
            if webhooks:
                self.sim.workspace.set_webhook(f"{url}/webhooks/default/{WEBHOOK_TOKEN}")
            try:
                yield url
            finally:
                listener.bus.close()

    async def start_listener(self, tasks: TaskGroup, **given: Any) -> Running:
        """A listener that can be stopped at any time."""
        stop, stopped = anyio.Event(), anyio.Event()

        async def run(task_status: TaskStatus[str]) -> None:
            async with self.listener(**given) as url:
                task_status.started(url)
                await stop.wait()
            stopped.set()

        return Running(url=await tasks.start(run), stopping=stop, stopped=stopped)

    def hub(self, feed: FeedClient | None = None, **options: Any) -> Hub:
        ticks = Ticks(unproven=0.05, proven=0.05, idle=0.05)
        return Hub(self.airbyte, feed, **{"ticks": ticks, "grace": 0.05, **options})


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """On asyncio."""
    simulator = Simulator(client_id="client", client_secret=CLIENT_SECRET, max_calls=50)
    connection = simulator.world.add_connection(Script.hanging(), name="orders")
    async with (
        serve_simulator(simulator) as sim,
        httpx.AsyncClient(trust_env=False, verify=False, limits=httpx.Limits(max_connections=None)) as http,
    ):
        with anyio.fail_after(20):
            yield Stage(sim=sim, connection_id=connection.id, http=http)


@dataclass
class Waiters:
    """Waits in tasks of their own, with what came of them."""

    tasks: TaskGroup
    results: dict[int, JobEvent | BaseException] = field(default_factory=dict)
    done: anyio.Event = field(default_factory=anyio.Event)

    def wait(self, hub: Hub, job_id: int, key: int | None = None, **options: Any) -> anyio.CancelScope:
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                try:
                    self.results[job_id if key is None else key] = await hub.wait(job_id, **options)
                except Exception as exc:
                    self.results[job_id if key is None else key] = exc
                self.done.set()
                self.done = anyio.Event()

        self.tasks.start_soon(run)
        return scope

    async def result(self, key: int) -> Any:
        with anyio.fail_after(30):  # a busy machine is not a fault
            while key not in self.results:
                await self.done.wait()
        return self.results[key]


@pytest.fixture
async def waiters(anyio_backend: str) -> AsyncIterator[Waiters]:
    async with anyio.create_task_group() as tasks:
        yield Waiters(tasks)
        tasks.cancel_scope.cancel()


@pytest.fixture
def make() -> Any:
    """What tests make things by: they can't import this module."""

    class Make:
        client = staticmethod(client_of)
        body = staticmethod(body)
        event = staticmethod(event_of)
        serve = staticmethod(serve)
        airbyte = Airbyte
        listener = Listener
        connection = CONNECTION
        api_token = API_TOKEN
        webhook_token = WEBHOOK_TOKEN
        secrets = (CLIENT_SECRET, API_TOKEN, WEBHOOK_TOKEN)

    return Make

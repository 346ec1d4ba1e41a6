"""All that goes on around a listener: jobs that end, webhooks, followers, waiters; and what must hold afterwards."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
from anyio.abc import TaskGroup

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.errors import FeedError
from airbyte_events.events import Cursor, JobEvent
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.hub import Hub
from airbyte_events.monitor.poller import Ticks
from airbyte_events.simulator import Phase, Script, Simulator
from airbyte_events.simulator.models import Connection, Job
from airbyte_events.store.base import EventStore
from soak.listening import API_TOKEN

ENDS = ("succeeded",) * 6 + ("failed",) * 3 + ("cancelled",)
SETTLE_SECONDS = 180.0
HEADERS = {"Authorization": f"Bearer {API_TOKEN}"}


@dataclass(kw_only=True)
class Follower:
    """Follows a feed from its first event on, whatever happens to the listener, and resumes by cursor alone.

    :param seen: the sequence of each event that it was told, in that order.
    """

    client: FeedClient
    dice: random.Random
    cursor: Cursor
    seen: list[int] = field(default_factory=list)
    resets: int = 0
    resumed: int = -1
    _told: anyio.Event = field(default_factory=anyio.Event)

    async def run(self) -> None:
        while True:
            try:
                async with self.client.stream(after=self.cursor) as frames:
                    async for frame in frames:
                        self.resumed += frame.name == "hello"
                        self.cursor = frame.cursor or self.cursor
                        self.resets += frame.name == "reset"
                        if frame.event is not None:
                            assert frame.cursor is not None
                            self.seen.append(frame.cursor.sequence)
                        self._told.set()
                        self._told = anyio.Event()
                        if frame.name == "goaway":
                            break
            except FeedError:
                pass
            await anyio.sleep(self.dice.uniform(0, 0.2))

    async def reached(self, sequence: int) -> None:
        """Returns when it has been told of everything up to there, or the time is up."""
        with anyio.move_on_after(SETTLE_SECONDS):
            while self.cursor.sequence < sequence:
                await self._told.wait()


class Crowd:
    """Jobs, followers and waiters of one listener, in tasks of their own.

    :param urls: of the listeners; followers and hubs are spread over them.
    :param airbyte: the simulator itself; jobs are made to end in it.
    :param airbyte_url: where waiters reach it.
    """

    def __init__(
        self, airbyte: Simulator, urls: list[str], http: httpx.AsyncClient, dice: random.Random, airbyte_url: str = ""
    ) -> None:
        self.jobs: list[Job] = []
        self.results: dict[int, JobEvent | Exception] = {}
        self.waited: set[int] = set()
        self.followers: list[Follower] = []
        self.rotten: set[int] = set()
        """Jobs that Airbyte fails over: what webhooks tell of them can't be confirmed."""
        self.most: float = math.inf
        """How many jobs there may be by now. On a slow machine rounds last longer, and what a listener that comes back
        takes in at once has its bound."""
        self._airbyte, self._urls, self._http, self._dice = airbyte, urls, http, dice
        self._airbyte_url = airbyte_url or airbyte.url
        self._connections: list[Connection] = []
        self._busy = anyio.CancelScope()

    def __str__(self) -> str:
        resumed = sum(follower.resumed for follower in self.followers)
        return f"{len(self.waited)} waiters, {len(self.followers)} followers, {resumed} resumptions"

    def follow(self, tasks: TaskGroup, count: int, first: Cursor) -> None:
        """Have so many follow, each from a cursor on."""
        for number in range(count):
            follower = Follower(client=self.feed(number), dice=random.Random(self._dice.random()), cursor=first)
            self.followers.append(follower)
            tasks.start_soon(follower.run)

    def hub(self, number: int = 0, **options: Any) -> Hub:
        client = AirbyteClient(self._http, self._airbyte_url, timeout=5, base_delay=0.2, max_delay=1)
        return Hub(client, self.feed(number), ticks=Ticks(unproven=1, proven=1, idle=1), **options)

    def feed(self, number: int) -> FeedClient:
        return FeedClient(self._http, self._urls[number % len(self._urls)], API_TOKEN, hello=2, silence=20, answer=5)

    def start_jobs(self, count: int) -> list[Job]:
        """Jobs that run for a moment and end, each in some way."""
        free = [each for each in self._connections if each.current is None][:count]
        new = [self._airbyte.world.add_connection(Script.hanging()) for _ in range(count - len(free))]
        self._connections += new
        jobs = [self._airbyte.world.start_job(each, script=self._script()) for each in free + new]
        self.jobs += jobs
        return jobs

    def _script(self) -> Script:
        running = Phase(status="running", seconds=self._dice.uniform(0, 1))
        return Script(phases=(running,), end=self._dice.choice(ENDS))

    async def work(self, tasks: TaskGroup, hubs: list[Hub], each_second: int) -> None:
        """Start jobs, in bursts now and then, until :meth:`rest`; some of them are waited for."""
        with self._busy:
            while True:
                burst = self._dice.random() < 0.02
                wanted = each_second if burst else max(1, each_second // 20)
                for job in self.start_jobs(max(0, int(min(wanted, self.most - len(self.jobs))))):
                    if hubs and self._dice.random() < 0.2:
                        self.wait(tasks, self._dice.choice(hubs), job.id)
                await anyio.sleep(0.05)

    def wait(self, tasks: TaskGroup, hub: Hub, job_id: int) -> None:
        self.waited.add(job_id)
        tasks.start_soon(self._wait, hub, job_id)

    async def _wait(self, hub: Hub, job_id: int) -> None:
        try:
            self.results[job_id] = await hub.wait(job_id)
        except Exception as exc:
            self.results[job_id] = exc

    def rest(self) -> None:
        """No further jobs."""
        self._busy.cancel()

    async def settled(self) -> None:
        """Returns when every job has ended, every webhook has had its answer or none, and every waiter has left."""
        await until(lambda: all(job.terminal for job in self.jobs), "all jobs to end")
        for job in self.jobs:
            for delivery in job.deliveries:
                await delivery.over.wait()
        await until(lambda: self.results.keys() == self.waited, "all waiters to leave")


async def until(condition: Callable[[], bool], what: str) -> None:
    with anyio.move_on_after(SETTLE_SECONDS) as scope:
        while not condition():  # noqa: ASYNC110 -- nobody tells
            await anyio.sleep(0.05)
    assert not scope.cancelled_caught, f"waited {SETTLE_SECONDS:g} s for {what}, in vain"


async def first_cursor(http: httpx.AsyncClient, url: str) -> Cursor:
    """The cursor before a log's first event."""
    answer = (await http.get(f"{url}/v1/events", headers=HEADERS)).json()
    return Cursor(Cursor.parse(answer["cursor"]).epoch, 0)


async def until_known(http: httpx.AsyncClient, url: str, jobs: list[Job]) -> int:
    """Returns when a listener has told the end of each of these jobs; the head of its log is returned."""
    left = {job.id for job in jobs}
    cursor = str(await first_cursor(http, url))
    with anyio.move_on_after(SETTLE_SECONDS):
        while left:
            params: dict[str, str | int] = {"after": cursor, "limit": 1000, "wait": 5, "terminal": "true"}
            page = (await http.get(f"{url}/v1/events", headers=HEADERS, params=params)).json()
            left -= {event["data"]["job_id"] for event in page["events"]}
            cursor = page["cursor"]
    assert not left, f"the listener has not heard of the end of {sorted(left)[:10]} and more, {len(left)} in all"
    return int(cursor.rpartition("-")[2])


async def until_confirmed(http: httpx.AsyncClient, url: str, but: Collection[int] = ()) -> None:
    """Returns when no notification waits for confirmation any more, but for those of some jobs, or the time is up."""
    params = {"limit": "1000"}
    with anyio.move_on_after(SETTLE_SECONDS):
        while True:
            answer = (await http.get(f"{url}/v1/notifications", headers=HEADERS, params=params)).json()
            if any(each["outcome"] == "pending" and each["job_id"] not in but for each in answer["notifications"]):
                await anyio.sleep(0.1)
            elif answer["next"] is None:
                return
            else:
                params["before"] = answer["next"]


@dataclass(kw_only=True)
class Verdict:
    """What came of it, counted; :meth:`check` says whether that is as it should be."""

    sent: int = 0
    acknowledged: int = 0
    events: int = 0
    seen: int = 0
    lost: int = 0
    doubled: int = 0
    faults: list[str] = field(default_factory=list)

    def check(self) -> None:
        assert not self.faults, "\n".join(self.faults[:20])

    @property
    def figures(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("sent", "acknowledged", "events", "seen", "lost", "doubled")}


async def judge(store: EventStore, crowd: Crowd) -> Verdict:
    """Compare what a store holds with what was acknowledged, what happened in Airbyte, and what everybody saw."""
    verdict = Verdict()
    log = await read_all(store)
    ends = Counter(event.ref.job_id for event in log if event.terminal)
    verdict.events = len(log)
    sequences = [event.cursor.sequence for event in log if event.cursor is not None]
    stored = await inbox(store)
    for job in crowd.jobs:
        for delivery in job.deliveries:
            verdict.sent += delivery.sent_at is not None
            if delivery.status in (200, 202):
                verdict.acknowledged += 1
                if job.id not in stored:
                    verdict.lost += 1
                    verdict.faults.append(f"I1: job {job.id}'s webhook was acknowledged and is not stored")
        if ends[job.id] != 1:
            verdict.lost += not ends[job.id]
            verdict.doubled += max(0, ends[job.id] - 1)
            verdict.faults.append(f"I2: job {job.id} has {ends[job.id]} ends in the log")
    truth = {job.id: job.status for job in crowd.jobs}
    verdict.faults += [
        f"I3: job {event.ref.job_id} is {truth[event.ref.job_id]}, not {event.status.value}"
        for event in log
        if event.terminal and event.status.value != truth[event.ref.job_id]
    ]
    verdict.faults += [
        f"job {id_}'s webhook is still pending"
        for id_, outcomes in stored.items()
        if "pending" in outcomes and id_ not in crowd.rotten
    ]
    for number, follower in enumerate(crowd.followers):
        verdict.seen += len(follower.seen)
        verdict.lost += len(set(sequences) - set(follower.seen))
        verdict.doubled += len(follower.seen) - len(set(follower.seen))
        if follower.seen != sequences:
            missing = sorted(set(sequences) - set(follower.seen))[:5]
            verdict.faults.append(
                f"I5: follower {number} saw {len(follower.seen)} of {len(sequences)} events, not {missing}, in order:"
                f" {follower.seen == sorted(follower.seen)}; {follower.resets} resets"
            )
    for job_id in crowd.waited:
        result = crowd.results.get(job_id)
        if not isinstance(result, JobEvent) or result.status.value != truth[job_id]:
            verdict.faults.append(f"I3, I4: the waiter for job {job_id}, {truth[job_id]}, got {result!r}")
    return verdict


async def read_all(store: EventStore) -> list[JobEvent]:
    log: list[JobEvent] = []
    position, head = 0, await store.head()
    while position < head:
        page = await store.read(position, limit=1000)
        log += page.events
        position = page.position
    return log


async def inbox(store: EventStore) -> dict[int, list[str]]:
    """The outcomes of the notifications that are stored, by job."""
    outcomes: dict[int, list[str]] = {}
    before = None
    while page := await store.notifications(limit=1000, before=before):
        before = page[-1].id
        for stored in page:
            if stored.job_id is not None:
                outcomes.setdefault(stored.job_id, []).append(stored.outcome.value)
    return outcomes

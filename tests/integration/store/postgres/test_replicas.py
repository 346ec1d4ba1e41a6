"""Three listeners, as processes, on one PostgreSQL behind a load balancer: killed, restarted one by one, suspended."""

from __future__ import annotations

import secrets
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import ByteStream, SocketStream, TaskGroup

from airbyte_events.airbyte import AirbyteClient
from airbyte_events.errors import FeedError
from airbyte_events.events import Cursor, JobEvent
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.hub import Hub
from airbyte_events.simulator import Script, Simulator, serve_simulator
from airbyte_events.simulator.models import Job
from support import waiting
from support.command import command
from support.listener import bearer
from support.loops import anyio_backend as anyio_backend
from support.process import environ_of
from support.servers import accepting, free_port
from support.waiting import a_moment

pytestmark = pytest.mark.anyio

API_TOKEN = "api-token-0123456789abcdef012345"
WEBHOOK_TOKEN = "webhook-token-0123456789abcdef01"
LEASE = "sources/default"
AUTHORIZED = bearer(API_TOKEN)


async def until(condition: Callable[[], object], within: float = 60) -> float:
    """Seconds until it held."""
    began = anyio.current_time()
    await waiting.until(condition, within=within)
    return anyio.current_time() - began


class Listener:
    """A listener's process, which can be started again on its port.

    :param folder: for its log.
    :param settings: ``AIRBYTE_EVENTS_*``.
    """

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.port = free_port()
        self._log = folder / f"listener-{self.port}.log"
        self._said_before = 0
        self._environ = environ_of(**settings)
        self._files = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._said_before = len(self.log)
        with self._log.open("ab") as log:
            serve = [*command(), "serve", "--port", str(self.port)]
            self._process = subprocess.Popen(serve, env=self._environ, stdout=log, stderr=log)  # noqa: ASYNC220
        async with httpx.AsyncClient(trust_env=False) as http:
            with anyio.fail_after(60):
                while True:
                    assert self._process.poll() is None, self.log[-3000:]
                    with suppress(httpx.TransportError):
                        if (await http.get(f"http://127.0.0.1:{self.port}/readyz", timeout=2)).status_code == 200:
                            return
                    await anyio.sleep(0.05)

    def signal(self, which: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(which)

    async def ended(self, within: float = 30) -> int:
        assert self._process is not None
        process = self._process
        await until(lambda: process.poll() is not None, within)
        self._process = None
        return int(process.returncode)

    def end(self) -> None:
        """For good."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    @property
    def holds(self) -> bool:
        """Whether its log says last that this process leads the instance."""
        said = self.log[self._said_before :]
        return said.rfind(f"acquired lease {LEASE}") > max(
            said.rfind(f"{verb} lease {LEASE}") for verb in ("released", "lost")
        )


class Balancer:
    """Gives each connection to the next listener that takes it.

    :param ports: the listeners'.
    """

    def __init__(self, ports: list[int]) -> None:
        self.out: set[int] = set()
        """Ports that get no new connection: their health check fails."""
        self.ports = ports
        self._turns = count()

    async def pass_on(self, client: SocketStream) -> None:
        async with client, AsyncExitStack() as stack:
            for _ in self.ports:
                port = self.ports[next(self._turns) % len(self.ports)]
                if port in self.out:
                    continue
                try:
                    server = await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", port))
                except OSError:
                    continue
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._pump, client, server, tasks)
                    tasks.start_soon(self._pump, server, client, tasks)
                return

    async def _pump(self, source: ByteStream, sink: ByteStream, tasks: TaskGroup) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                await sink.send(await source.receive())
        tasks.cancel_scope.cancel()


@dataclass(kw_only=True)
class Scene:
    """:param url: the balancer's.
    :param log: the terminal events, as one who follows the feed through the balancer was told.
    :param results: what waiters came to: of each of three hubs, by job.
    """

    sim: Simulator
    listeners: list[Listener]
    balancer: Balancer
    url: str
    http: httpx.AsyncClient
    tasks: TaskGroup
    log: list[int] = field(default_factory=list)
    resets: int = 0
    jobs: list[Job] = field(default_factory=list)
    results: list[dict[int, JobEvent]] = field(default_factory=list)
    hubs: list[Hub] = field(default_factory=list)

    async def holder(self) -> Listener:
        await until(lambda: any(each.holds for each in self.listeners))
        return next(each for each in self.listeners if each.holds)

    def others(self, than: Listener) -> list[Listener]:
        return [each for each in self.listeners if each is not than]

    async def follow(self) -> None:
        """Be told of every end, from the log's beginning, whatever happens to the stream."""
        feed = FeedClient(self.http, self.url, API_TOKEN)
        after: Cursor | None = None
        while True:
            try:
                async with feed.stream(after=after) as frames:
                    async for frame in frames:
                        after = frame.cursor or after
                        self.resets += frame.name == "reset"
                        if frame.event is not None and frame.event.terminal:
                            self.log.append(frame.event.ref.job_id)
            except FeedError:
                await anyio.sleep(0.1)

    async def wait_for_all(self, hubs: int) -> None:
        """Have so many triggerers wait for every job."""
        for _ in range(hubs):
            results: dict[int, JobEvent] = {}
            self.results.append(results)
            self.tasks.start_soon(self._wait, results)
        await until(lambda: len(self.hubs) == hubs and all(hub.following for hub in self.hubs))

    async def _wait(self, results: dict[int, JobEvent]) -> None:
        async def wait_one(job_id: int) -> None:
            results[job_id] = await hub.wait(job_id)

        feed = FeedClient(self.http, self.url, API_TOKEN)
        # It does not poll: what is told here has come by the feed.
        async with (
            Hub(AirbyteClient(self.http, self.sim.url), feed, grace=3600, recheck=3600) as hub,
            anyio.create_task_group() as tasks,
        ):
            self.hubs.append(hub)
            for job in self.jobs:
                tasks.start_soon(wait_one, job.id)

    def start_jobs(self, number: int) -> None:
        world = self.sim.world
        self.jobs += [world.start_job(world.add_connection(Script.hanging())) for _ in range(number)]

    async def end_jobs(self, jobs: list[Job], pause: float) -> None:
        for job in jobs:
            self.sim.world.end_job(job, "failed" if job.id % 3 == 0 else "succeeded")
            await anyio.sleep(pause)

    def nothing_is_under_way(self) -> bool:
        return all(each.over.is_set() for job in self.jobs for each in job.deliveries)

    async def everybody_knows(self) -> None:
        """Returns when all waits are over and the follower has seen every end, and nothing waits in the inbox."""
        wanted = {job.id for job in self.jobs}
        await until(lambda: all(results.keys() == wanted for results in self.results), 90)
        await until(lambda: wanted <= set(self.log), 90)
        with anyio.fail_after(60):
            while any(each["outcome"] == "pending" for each in await self.inbox()):
                await a_moment()

    async def inbox(self) -> list[dict[str, Any]]:
        answer = await self.http.get(f"{self.url}/v1/notifications", params={"limit": 1000}, headers=AUTHORIZED)
        answer.raise_for_status()
        return list(answer.json()["notifications"])

    async def check(self) -> None:
        """Nothing was lost, nothing was doubled, and everybody was told the truth."""
        truth = {job.id: job.status for job in self.jobs}
        for results in self.results:
            assert {job_id: event.status.value for job_id, event in results.items()} == truth
        assert Counter(self.log) == dict.fromkeys(truth, 1)
        assert self.resets == 0
        acknowledged = {job.id for job in self.jobs for each in job.deliveries if each.status in (200, 202)}
        kept = {each["job_id"]: each["outcome"] for each in await self.inbox()}
        assert acknowledged <= kept.keys()
        assert {kept[job_id] for job_id in acknowledged} == {"confirmed"}
        for listener in self.listeners:
            assert "Traceback" not in listener.log, listener.log[-3000:]


@pytest.fixture
def settings(postgres_url: str) -> dict[str, str]:
    separator = "&" if "?" in postgres_url else "?"
    return {
        "STORE": f"{postgres_url}{separator}schema=replicas_{secrets.token_hex(4)}",
        "API_TOKENS": API_TOKEN,
        "WEBHOOK_TOKENS": WEBHOOK_TOKEN,
        "POLL_INTERVAL": "2",
        "POLL_INTERVAL_PROVEN": "2",
        "POLL_INTERVAL_IDLE": "2",
        "LOG_LEVEL": "info",
    }


@pytest.fixture
async def scene(tmp_path: Path, settings: dict[str, str]) -> AsyncIterator[Scene]:
    async with (
        serve_simulator(Simulator(max_calls=50)) as sim,
        httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None), timeout=30) as http,
        anyio.create_task_group() as tasks,
    ):
        listeners = [Listener(tmp_path, settings | {"AIRBYTE_URL": sim.url}) for _ in range(3)]
        try:
            async with anyio.create_task_group() as starting:
                for listener in listeners:
                    starting.start_soon(listener.start)
            balancer = Balancer([listener.port for listener in listeners])
            async with served(balancer) as url:
                sim.workspace.set_webhook(f"{url}/webhooks/default/{WEBHOOK_TOKEN}")
                scene = Scene(sim=sim, listeners=listeners, balancer=balancer, url=url, http=http, tasks=tasks)
                yield scene
                tasks.cancel_scope.cancel()
        finally:
            for listener in listeners:
                listener.end()


@asynccontextmanager
async def served(balancer: Balancer) -> AsyncIterator[str]:
    async with accepting(balancer.pass_on) as port:
        yield f"http://127.0.0.1:{port}"


async def test_one_looks_and_a_watch_anywhere_reaches_it(scene: Scene) -> None:
    holder = await scene.holder()
    assert [each.holds for each in scene.others(holder)] == [False, False]
    scene.start_jobs(9)
    for job in scene.jobs:
        refs = [{"instance": "default", "job_id": job.id}]
        answer = await scene.http.post(f"{scene.url}/v1/watches", json={"jobs": refs}, headers=AUTHORIZED)
        assert [each["status"] for each in answer.json()["jobs"]] == ["running"]
    looks = scene.sim.traffic.counts["GET /jobs"]
    seconds = await until(lambda: scene.sim.traffic.counts["GET /jobs"] >= looks + 4)
    # Three listeners that each looked would take a third of this.
    assert seconds > 4.5


async def test_i2_i5_the_holder_is_killed_under_load(scene: Scene) -> None:
    scene.start_jobs(90)
    scene.tasks.start_soon(scene.follow)
    await scene.wait_for_all(hubs=3)
    killed = await scene.holder()
    await scene.end_jobs(scene.jobs[:30], 0.02)
    async with anyio.create_task_group() as load:
        load.start_soon(scene.end_jobs, scene.jobs[30:60], 0.1)
        killed.signal(signal.SIGKILL)
        seconds = await until(lambda: any(each.holds for each in scene.others(killed)))
    await killed.ended()
    print(f"taken over {seconds:.1f} s after kill -9")
    assert seconds < 30
    await scene.end_jobs(scene.jobs[60:], 0.02)
    await scene.everybody_knows()
    await scene.check()


async def test_i5_i8_rolling_restart_under_load(scene: Scene) -> None:
    scene.start_jobs(90)
    scene.tasks.start_soon(scene.follow)
    await scene.wait_for_all(hubs=2)
    longest = 0.0
    async with anyio.create_task_group() as load:
        load.start_soon(scene.end_jobs, scene.jobs, 0.1)
        for listener in scene.listeners:
            held = listener.holds
            # As in Kubernetes: no new connections, then the signal.
            scene.balancer.out.add(listener.port)
            await until(scene.nothing_is_under_way)
            listener.signal(signal.SIGTERM)
            if held:
                longest = max(longest, await until(lambda: any(each.holds for each in scene.others(listener))))  # noqa: B023
            assert await listener.ended() == 0
            await listener.start()
            scene.balancer.out.remove(listener.port)
    print(f"handed over at most {longest:.2f} s after SIGTERM")
    await scene.everybody_knows()
    await scene.check()
    # Nothing was refused on the way: there was always somebody to take a webhook.
    assert {each.status for job in scene.jobs for each in job.deliveries} == {202}


async def test_i2_the_holder_is_suspended_and_wakes_up(scene: Scene) -> None:
    scene.start_jobs(60)
    scene.tasks.start_soon(scene.follow)
    suspended = await scene.holder()
    scene.balancer.out.add(suspended.port)
    await scene.wait_for_all(hubs=2)
    await scene.end_jobs(scene.jobs[:20], 0.01)
    suspended.signal(signal.SIGTSTP)
    await scene.end_jobs(scene.jobs[20:40], 0.05)
    await until(lambda: any(each.holds for each in scene.others(suspended)))
    suspended.signal(signal.SIGCONT)
    scene.balancer.out.clear()
    await scene.end_jobs(scene.jobs[40:], 0.05)
    await until(lambda: not suspended.holds)
    await scene.everybody_knows()
    await scene.check()
    assert sum(each.holds for each in scene.listeners) == 1


async def test_i4_a_holder_that_can_not_reach_airbyte_leaves_it_to_one_that_can(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    """The webhooks that it takes meanwhile are confirmed by the other."""
    async with (
        serve_simulator(Simulator(max_calls=50)) as sim,
        httpx.AsyncClient(trust_env=False, timeout=30) as http,
        AsyncExitStack() as stack,
    ):
        way = Balancer([int(sim.url.rpartition(":")[2])])
        way.out.update(way.ports)
        cut_off = Listener(tmp_path, settings | {"AIRBYTE_URL": await stack.enter_async_context(served(way))})
        other = Listener(tmp_path, settings | {"AIRBYTE_URL": sim.url})
        for listener in (cut_off, other):
            stack.callback(listener.end)
        await cut_off.start()
        await until(lambda: cut_off.holds)
        sim.workspace.set_webhook(f"http://127.0.0.1:{cut_off.port}/webhooks/default/{WEBHOOK_TOKEN}")
        jobs = [sim.world.start_job(sim.world.add_connection(Script.hanging())) for _ in range(30)]
        for job in jobs:
            sim.world.end_job(job, "succeeded")
        await until(lambda: all(each.status == 202 for job in jobs for each in job.deliveries))
        await other.start()
        # 15 s of failures, and whatever a busy machine adds.
        seconds = await until(lambda: other.holds and not cut_off.holds, 90)
        print(f"passed on within {seconds:.1f} s")
        query: dict[str, Any] = {"after": f"{(await _cursor(http, other)).epoch}-0", "limit": 100, "terminal": "true"}
        known: list[int] = []
        with anyio.fail_after(60):
            while len(known) < len(jobs):
                answer = await http.get(f"http://127.0.0.1:{cut_off.port}/v1/events", params=query, headers=AUTHORIZED)
                known = [each["data"]["job_id"] for each in answer.json()["events"]]
        assert sorted(known) == [job.id for job in jobs]


async def _cursor(http: httpx.AsyncClient, listener: Listener) -> Cursor:
    answer = await http.get(f"http://127.0.0.1:{listener.port}/v1/events", headers=AUTHORIZED)
    return Cursor.parse(answer.json()["cursor"])

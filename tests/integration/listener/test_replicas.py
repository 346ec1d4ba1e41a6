"""Several listeners on one store: one at a time confirms and polls, and another takes over."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import anyio.lowlevel
import httpx
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte.notifications import parse
from airbyte_events.errors import LeaseLost, ServerError, StoreError
from airbyte_events.events import ANY_JOB, JobRef
from airbyte_events.listener.assembly import Listener, assemble
from airbyte_events.listener.http.viewers import Viewers
from airbyte_events.listener.inbox import Inbox
from airbyte_events.listener.leader import LeaderElection
from airbyte_events.listener.pipeline import Pipeline
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.monitor.poller import Poller, Ticks
from airbyte_events.store.base import EventStore
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import Arrival, Outcome
from support.airbyte import Airbyte, client_of
from support.events import event_of, webhook_body
from support.listener import API_TOKEN, WEBHOOK_TOKEN, bearer, instance_of, settings_of
from support.monitor import Watched
from support.servers import serve
from support.stored import SharedStore
from support.waiting import in_background, until

pytestmark = pytest.mark.anyio

LEASE = "sources/default"
QUICK = {"lease": 0.4, "renewal": 0.05, "spread": 0.05, "probe": 0.05}
NEVER = {"lease": 3600.0, "renewal": 3600.0}
OFTEN = Ticks(unproven=0.02, proven=0.02, idle=0.02)
WATCHED_ONLY = Ticks(unproven=0.02, proven=0.02, idle=3600.0)


class Line:
    """One listener's way to the store that all share.

    :param cut: nothing gets through.
    :param held: what a lease is needed or asked for arrives when this is set, and nothing can call it back.
    """

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.cut = False
        self.held: anyio.Event | None = None
        self.waiting = 0
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def through(*args: Any, **options: Any) -> Any:
            if self.cut:
                raise StoreError("the line is cut")
            if self.held is not None and (options.get("lease") or name == "acquire"):
                self.waiting += name == "append"
                with anyio.CancelScope(shield=True):
                    await self.held.wait()
                    try:
                        return await found(*args, **options)
                    except LeaseLost:
                        self.refused += 1
                        raise
            return await found(*args, **options)

        return through


@dataclass
class Replica:
    """What a listener runs, with leases that suit a test."""

    line: Line
    pipelines: dict[str, Pipeline]
    election: LeaderElection
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def holds(self) -> int:
        return len(self.election.held)

    @property
    def lists(self) -> int:
        return sum(each.counters.lists for each in self.pipelines.values())

    async def watch(self, *job_ids: int) -> Any:
        return await self.pipelines["default"].watch(dict.fromkeys(job_ids, ANY_JOB))

    def kill(self) -> None:
        self.line.cut = True
        self.scope.cancel()


@dataclass
class Group:
    """Replicas on one store.

    :param watched: the store and the Airbyte, as other tests use them.
    """

    store: MemoryStore
    watched: Watched
    start: Callable[..., Replica]
    replicas: list[Replica] = field(default_factory=list)

    @property
    def holder(self) -> Replica:
        (holder,) = [replica for replica in self.replicas if replica.holds]
        return holder

    @property
    def others(self) -> list[Replica]:
        return [replica for replica in self.replicas if not replica.holds]

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    async def until_held(self, *by: Replica) -> Replica:
        await self.until(lambda: any(replica.holds for replica in by or self.replicas))
        return next(replica for replica in by or self.replicas if replica.holds)

    async def receive(self, replica: Replica, body: bytes) -> Any:
        """A webhook comes to a replica."""
        notification = parse(body)
        arrival = Arrival(
            instance="default",
            body=body,
            kind=notification.kind.value,
            job_id=notification.job_id,
            outcome=Outcome.PENDING,
            received_at=utcnow(),
        )
        receipt = await replica.line.receive(arrival)
        return (await self.store.notifications(limit=1, before=receipt.id + 1))[0]


@pytest.fixture
async def group(watched: Watched, http: httpx.AsyncClient) -> AsyncIterator[Group]:
    store = SharedStore()
    watched.store = store
    async with anyio.create_task_group() as tasks:
        replicas: list[Replica] = []

        def start(
            ticks: Ticks = OFTEN, instances: Sequence[str] = ("default",), url: str | None = None, **leases: float
        ) -> Replica:
            line = Line(store)
            through = cast(EventStore, line)
            airbyte = client_of(http, url or watched.airbyte.url)
            pipelines = {name: Pipeline(name, airbyte, through, ticks) for name in instances}
            works = {f"sources/{name}": each.run for name, each in pipelines.items()}
            health = {f"sources/{name}": each for name, each in pipelines.items()}
            replica = Replica(line, pipelines, LeaderElection(through, works, health=health, **QUICK | leases))

            async def run() -> None:
                with replica.scope:
                    await replica.election.run()

            tasks.start_soon(run)
            replicas.append(replica)
            return replica

        try:
            yield Group(store, watched, start, replicas)
        finally:
            for replica in replicas:
                if replica.line.held is not None:
                    replica.line.held.set()
            tasks.cancel_scope.cancel()


class TestViewers:
    async def test_who_looks_at_any_listener_has_the_leader_poll_more_often(self, group: Group) -> None:
        ticks = Ticks(unproven=3600, proven=3600, viewed=0.02, idle=3600)
        for _ in range(2):
            group.start(ticks, lease=5.0)
        await group.until_held()
        await group.until(lambda: group.watched.airbyte.lists == 1)
        (other,) = group.others
        viewers, others = [
            Viewers(cast(EventStore, replica.line), replica.pipelines.values(), exchange=0.02)
            for replica in (group.holder, other)
        ]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(viewers.run)
            tasks.start_soon(others.run)
            await anyio.wait_all_tasks_blocked()
            assert group.watched.airbyte.lists == 1
            other.line.cut = True
            with others.request():
                await anyio.wait_all_tasks_blocked()
                assert group.watched.airbyte.lists == 1
                other.line.cut = False
                await group.until(lambda: group.watched.airbyte.lists > 5)
            tasks.cancel_scope.cancel()


class TestTogether:
    async def test_one_look_a_tick_in_all(self, group: Group) -> None:
        for _ in range(3):
            group.start(lease=5.0)
        await group.until(lambda: group.watched.airbyte.lists >= 20)

        lists = sorted(replica.lists for replica in group.replicas)
        assert lists[:2] == [0, 0]
        assert lists[2] >= 19

    async def test_a_webhook_is_confirmed_once_whoever_received_it(self, group: Group) -> None:
        for _ in range(3):
            group.start(WATCHED_ONLY)
        await group.until_held()
        for job_id in range(1, 13):
            group.watched.airbyte.put(job_id, "succeeded")
            stored = await group.receive(group.replicas[job_id % 3], webhook_body(job_id))
            await group.watched.until_settled(stored)
            assert await group.watched.outcome(stored) is Outcome.CONFIRMED

        assert group.watched.airbyte.reads == 12
        assert [await group.watched.ends(job_id) for job_id in range(1, 13)] == [1] * 12
        monitor = group.holder.pipelines["default"].monitor
        assert monitor is not None
        assert monitor.push_proven

    async def test_who_comes_later_does_not_disturb_who_holds(self, group: Group) -> None:
        first = group.start(lease=2.0)
        await group.until_held()
        fence = first.election.held[LEASE].lease.fence
        group.start()
        group.start()
        # Longer than a lease that is not renewed.
        await anyio.sleep(2.2)

        assert group.holder is first
        assert first.election.held[LEASE].lease.fence == fence


class TestTakingOver:
    async def test_i4_from_one_that_was_killed(self, group: Group) -> None:
        for _ in range(3):
            group.start()
        killed = await group.until_held()
        fence = killed.election.held[LEASE].lease.fence
        for job_id in range(1, 9):
            group.watched.airbyte.put(job_id)
        await group.others[0].watch(*range(1, 9))
        killed.kill()
        for job_id in range(1, 9):
            group.watched.airbyte.put(job_id, "succeeded")
        stored = await group.receive(group.replicas[group.replicas[0] is killed], webhook_body(1))

        next_one = await group.until_held(*(each for each in group.replicas if each is not killed))
        await group.watched.until_ended(*range(1, 9))
        await group.watched.until_settled(stored)

        assert next_one.election.held[LEASE].lease.fence > fence
        assert [await group.watched.ends(job_id) for job_id in range(1, 9)] == [1] * 8

    async def test_from_one_that_stops_at_once(self, group: Group) -> None:
        first = group.start(**NEVER)
        await group.until_held()
        second, third = group.start(**NEVER), group.start(**NEVER)
        await anyio.wait_all_tasks_blocked()
        assert group.holder is first
        first.election.stop()

        await group.until_held(second, third)
        assert group.holder is not first

    async def test_i2_what_one_that_was_paused_writes_late_is_refused(self, group: Group) -> None:
        paused = group.start(WATCHED_ONLY)
        await group.until_held()
        await group.until(lambda: group.watched.airbyte.lists == 1)
        await anyio.wait_all_tasks_blocked()
        paused.line.held = anyio.Event()
        other = group.start(WATCHED_ONLY)
        group.watched.airbyte.put(5, "failed")
        stored = await group.receive(other, webhook_body(5, success=False))
        await group.until(lambda: paused.line.waiting)

        await group.until_held(other)
        await group.watched.until_settled(stored)
        # Meanwhile more happens; what the paused one has to say is of yesterday.
        before = await group.store.head()
        paused.line.held.set()
        paused.line.held = None
        await group.until(lambda: not paused.holds)

        assert await group.store.head() == before
        assert await group.watched.ends(5) == 1
        assert paused.line.refused >= 1
        assert group.holder is other

    async def test_one_that_loses_the_store_asks_no_more(self, group: Group) -> None:
        cut = group.start()
        await group.until_held()
        other = group.start()
        await group.until(lambda: cut.lists > 2)
        cut.line.cut = True
        await group.until(lambda: other.holds and not cut.holds)

        lists = cut.lists
        await group.until(lambda: other.lists > 5)
        assert cut.lists == lists
        # It comes back to its place in the queue.
        cut.line.cut = False
        other.election.stop()
        await group.until_held(cut)

    async def test_a_lease_that_is_not_renewed_ends(self, group: Group) -> None:
        only = group.start(lease=0.2, renewal=3600.0)
        await group.until_held()
        await group.until(lambda: not only.holds)
        assert only.pipelines["default"].monitor is None

    async def test_i2_who_finds_that_the_lease_is_lost_stops(self, group: Group, http: httpx.AsyncClient) -> None:
        lost = await group.store.acquire(LEASE, "this one", 3600)
        assert lost is not None
        await group.store.release(lost)
        await group.store.acquire(LEASE, "another", 3600)
        monitor = Monitor("default", client_of(http, group.watched.airbyte.url), group.store, lease=lost)
        group.watched.airbyte.put(5, "succeeded")
        stored = await group.receive(group.start(), webhook_body(5))
        with anyio.fail_after(30):
            with pytest.raises(LeaseLost):
                await Poller(monitor).run()
            with pytest.raises(LeaseLost):
                await Inbox(monitor, group.store).run()
            await Pipeline("default", monitor.system, group.store).run(lost)

        assert await group.store.head() == 0
        assert await group.watched.outcome(stored) is Outcome.PENDING
        assert await group.store.recall("looked_at/default") is None

    async def test_i5_it_goes_on_where_the_other_ended(self, group: Group) -> None:
        first = group.start(**NEVER)
        await group.until(lambda: first.lists > 2)
        mark = await group.store.recall("looked_at/default")
        assert mark is not None
        first.election.stop()
        group.start(WATCHED_ONLY, **NEVER)
        requests = group.watched.airbyte.requests
        sent = len(requests)

        def since() -> list[str]:
            return [each.query["updatedAtStart"][0] for each in requests[sent:] if "updatedAtStart" in each.query]

        await group.until(since)
        assert since()[0] <= mark

    async def test_i4_what_was_too_much_to_list_is_read_by_the_next(self, group: Group) -> None:
        group.watched.airbyte.put(1_000)
        await group.start(WATCHED_ONLY, **NEVER).watch(1_000)
        first = await group.until_held()
        await group.until(lambda: first.lists == 1)
        # The look that is cut short is the last thing that it does.
        monitor = first.pipelines["default"].monitor
        assert monitor is not None
        monitor.max_listed = 100
        del group.watched.airbyte.jobs[1_000]
        for job_id in range(1, 150):
            group.watched.airbyte.put(job_id, "succeeded")
        group.watched.airbyte.put(1_000, "succeeded")
        assert 1_000 not in await monitor.poll()
        first.election.stop()
        for job_id in (*range(1, 150), 1_000):
            group.watched.airbyte.changed[job_id] = utcnow().replace(year=2000)
        reads = group.watched.airbyte.reads_of(1_000)

        group.start(WATCHED_ONLY, **NEVER)
        await group.watched.until_ended(1_000)
        assert group.watched.airbyte.reads_of(1_000) == reads + 1


class TestWhereAirbyteCanNotBeReached:
    """By one listener, and by another it can."""

    @pytest.fixture
    async def far(self, group: Group) -> AsyncIterator[Any]:
        """A way to the same Airbyte on which every request fails until it is mended."""
        airbyte = Airbyte(jobs=group.watched.airbyte.jobs, changed=group.watched.airbyte.changed)
        airbyte.faults["all"] = 503
        async with serve(airbyte):
            yield airbyte

    def failures(self, replica: Replica) -> int:
        poller = replica.pipelines["default"].poller
        return 0 if poller is None else poller.failures

    async def test_i4_the_lease_passes_to_one_that_reaches_it(self, group: Group, far: Any) -> None:
        cut_off = group.start(url=far.url)
        await group.until(lambda: self.failures(cut_off) > 2)
        group.watched.airbyte.put(5, "succeeded")
        stored = await group.receive(cut_off, webhook_body(5))
        group.start()
        await group.watched.until_ended(5)
        await group.watched.until_settled(stored)
        assert await group.watched.outcome(stored) is Outcome.CONFIRMED
        assert not cut_off.holds

    async def test_refused_credentials_are_a_reason_as_well(self, group: Group, far: Any) -> None:
        far.faults["all"] = 401
        cut_off = group.start(url=far.url)
        await group.until_held(cut_off)
        other = group.start()
        await group.until_held(other)
        assert not cut_off.holds

    async def test_it_stays_where_nobody_waits_for_it(self, group: Group, far: Any) -> None:
        only = group.start(url=far.url, lease=5.0)
        await group.until_held()
        lease = only.election.held[LEASE].lease
        await group.until(lambda: self.failures(only) > 5)
        assert only.election.held[LEASE].lease == lease

    async def test_it_does_not_go_to_and_fro_where_nobody_reaches_it(self, group: Group, far: Any) -> None:
        first = group.start(url=far.url, lease=5.0)
        await group.until_held()
        fence = first.election.held[LEASE].lease.fence
        second = group.start(url=far.url, lease=5.0)
        await group.until_held(second)
        await group.until(lambda: self.failures(second) > 5)
        assert second.election.held[LEASE].lease.fence == fence + 1

    async def test_one_that_gave_it_back_takes_it_when_the_other_dies(self, group: Group, far: Any) -> None:
        first = group.start(url=far.url)
        await group.until_held()
        second = group.start()
        await group.until_held(second)
        second.kill()
        await group.until_held(first)

    async def test_one_that_reaches_it_again_waits_for_it_again(self, group: Group, far: Any) -> None:
        first = group.start(url=far.url)
        await group.until_held()
        second = group.start()
        await group.until_held(second)
        far.faults.clear()
        group.watched.airbyte.faults["all"] = 503
        await group.until_held(first)
        assert not second.holds


class TestSeveralInstances:
    async def test_are_done_at_once_where_nobody_shares_the_store(
        self, http: httpx.AsyncClient, watched: Watched
    ) -> None:
        store, airbyte = watched.store, client_of(http, watched.airbyte.url)
        works = {f"sources/{n}": Pipeline(str(n), airbyte, store, OFTEN).run for n in range(9)}
        election = LeaderElection(store, works, spread=3600)
        async with in_background(election.run):
            await anyio.wait_all_tasks_blocked()
            assert len(election.held) == 9
        assert election.held == {}

    async def test_spread_over_those_that_come_later(self, group: Group) -> None:
        instances = ["default", "a", "b", "c"]
        first = group.start(instances=instances, turn=0.1)
        await group.until(lambda: first.holds == 4)
        second = group.start(instances=instances, turn=0.1)

        await group.until(lambda: bool(first.holds and second.holds) and first.holds + second.holds == 4)

    async def test_one_that_dies_leaves_all_of_its_own(self, group: Group) -> None:
        instances = ["default", "a", "b", "c"]
        for _ in range(3):
            group.start(instances=instances)
        await group.until(lambda: sum(each.holds for each in group.replicas) == 4)
        killed = max(group.replicas, key=lambda each: each.holds)
        killed.kill()
        left = [each for each in group.replicas if each is not killed]
        await group.until(lambda: sum(each.holds for each in left) == 4)


class TestWatches:
    async def test_at_any_replica_are_polled_by_the_holder(self, group: Group) -> None:
        holder = group.start(WATCHED_ONLY)
        await group.until(lambda: holder.lists == 1)
        other = group.start(WATCHED_ONLY)
        group.watched.airbyte.put(5, ago=3600)
        assert (await other.watch(5))[5].status == "running"
        await group.until(lambda: holder.lists > 3)
        group.watched.airbyte.put(5, "cancelled")
        await group.watched.until_ended(5)

        # Nobody waits any more: time passes without a list.
        await anyio.wait_all_tasks_blocked()
        lists = holder.lists
        await anyio.sleep(0.1)
        assert (holder.lists, other.lists) == (lists, 0)
        assert group.watched.airbyte.reads == 1

    async def test_i4_outlive_the_holder_and_who_was_asked(self, group: Group) -> None:
        group.watched.airbyte.put(5, ago=3600)
        first, second = group.start(WATCHED_ONLY), group.start(WATCHED_ONLY)
        await group.until_held()
        await (second if first.holds else first).watch(5)
        first.kill()
        second.kill()
        third = group.start(WATCHED_ONLY)
        # The look with which it begins has been; this one is there because of the watch.
        await group.until(lambda: third.lists > 2)
        group.watched.airbyte.put(5, "cancelled")
        await group.watched.until_ended(5)

    async def test_who_is_asked_answers_from_the_store(self, group: Group) -> None:
        holder = group.start(WATCHED_ONLY)
        # Its first poll would find the job, too.
        await group.until(lambda: holder.lists == 1)
        group.watched.airbyte.put(5)
        for replica in (group.start(WATCHED_ONLY), group.start(WATCHED_ONLY), holder):
            assert (await replica.watch(5))[5].status == "running"
        assert group.watched.airbyte.reads == 1

    async def test_of_many_that_nobody_knows_one_look_tells(self, group: Group) -> None:
        for job_id in range(1, 31):
            group.watched.airbyte.put(job_id)
        other = Line(group.store)
        asked = Pipeline("default", group.watched.monitor.system, cast(EventStore, other))
        assert len(await asked.watch(dict.fromkeys(range(1, 31), ANY_JOB))) == 30
        assert (group.watched.airbyte.lists, group.watched.airbyte.reads) == (1, 0)
        # Where the next look begins is for the holder to say: this one took nothing in for its watches.
        assert await group.store.recall("looked_at/default") is None

    async def test_what_airbyte_does_not_know_or_has_ended_is_not_watched(self, group: Group) -> None:
        group.watched.airbyte.put(1, "succeeded")
        replica = group.start(WATCHED_ONLY)
        states = await replica.watch(1, 404)
        assert states[404] is None
        assert states[1].terminal
        assert await group.store.watched("default") == {}

    async def test_i4_what_could_not_be_asked_for_is_read_by_the_holder(self, group: Group) -> None:
        group.watched.airbyte.put(5, "succeeded", ago=86_400)
        holder = group.start(WATCHED_ONLY)
        await group.until(lambda: holder.lists == 1)
        group.watched.airbyte.faults[5] = 503
        with pytest.raises(ServerError):
            await group.start(WATCHED_ONLY).watch(5)
        await group.until(lambda: group.watched.airbyte.reads_of(5) > 1)
        group.watched.airbyte.faults.clear()
        await group.watched.until_ended(5)
        assert group.holder is holder

    async def test_that_run_out_are_not_polled(self, group: Group) -> None:
        for job_id in (5, 6):
            group.watched.airbyte.put(job_id, ago=3600)
        await group.store.watch([JobRef("default", 5)], 1)
        holder = group.start(WATCHED_ONLY)
        await group.until(lambda: 5 in _watched(holder))
        # Its second passes.
        await anyio.sleep(1)
        await group.start(WATCHED_ONLY).watch(6)
        await group.until(lambda: 6 in _watched(holder))
        assert 5 not in _watched(holder)

    async def test_that_the_holder_finds_unknown_are_not_asked_for_again(self, group: Group) -> None:
        await group.store.watch([JobRef("default", 404)], 60.0)
        holder = group.start(WATCHED_ONLY)
        # As often as it takes to say that Airbyte does not know a job.
        await group.until(lambda: group.watched.airbyte.reads_of(404) == 3)
        group.watched.airbyte.put(5)
        await group.start(WATCHED_ONLY).watch(5)
        await group.until(lambda: 5 in _watched(holder))
        lists = holder.lists
        await group.until(lambda: holder.lists > lists + 3)
        assert group.watched.airbyte.reads_of(404) == 3


def _watched(holder: Replica) -> set[int]:
    monitor = holder.pipelines["default"].monitor
    return set() if monitor is None else set(monitor.watches.jobs)


@asynccontextmanager
async def assembled(
    store: MemoryStore, airbyte: str, **given: Any
) -> AsyncIterator[tuple[Listener, httpx.AsyncClient]]:
    """A listener, and a client of it that needs no socket."""
    async with assemble(settings_of(instance_of(airbyte), **given), store=store) as listener:
        token = listener.new_tokens.get("api", API_TOKEN)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=listener.app),
            base_url="http://listener",
            headers=bearer(token),
        ) as client:
            yield listener, client


class TestAssembled:
    async def test_a_listener_without_the_lease_is_ready_and_does_everything(self, airbyte: Airbyte) -> None:
        store = SharedStore()
        airbyte.put(5)
        async with assembled(store, airbyte.url) as one, assembled(store, airbyte.url) as other:
            await until(lambda: LEASE in one[0].election.held | other[0].election.held)
            listener, client = other if LEASE in one[0].election.held else one
            assert (await client.get("/readyz")).json() == {"status": "ready", "faults": {}}
            refs = [{"instance": "default", "job_id": 5}]
            watches = (await client.post("/v1/watches", json={"jobs": refs})).json()
            assert [job["status"] for job in watches["jobs"]] == ["running"]
            airbyte.put(5, "failed")
            answer = await client.post(f"/webhooks/default/{WEBHOOK_TOKEN}", content=webhook_body(5, success=False))
            assert answer.status_code == 202
            page = (await client.get("/v1/events", params={"after": watches["cursor"], "wait": 10})).json()
            while not any(event["data"]["status"] == "failed" for event in page["events"]):
                page = (await client.get("/v1/events", params={"after": page["cursor"], "wait": 10})).json()
            assert page["events"][-1]["data"]["error"]["message"] == "no such table"
            assert LEASE not in listener.election.held
            replay = await client.post(f"/v1/notifications/{answer.json()['event']}/replay")
            assert replay.status_code == 202

    async def test_i5_a_cursor_of_one_is_good_at_the_other(self, airbyte: Airbyte) -> None:
        store = SharedStore()
        seen: list[int] = []
        async with assembled(store, airbyte.url) as (_, one), assembled(store, airbyte.url) as (_, other):
            cursor = f"{store.epoch}-0"
            for job_id, client in zip(range(1, 31), itertools.cycle([one, other])):
                await store.append([event_of(job_id)])
                page = (await client.get("/v1/events", params={"after": cursor, "wait": 10, "limit": 1})).json()
                cursor = page["cursor"]
                seen += [event["data"]["job_id"] for event in page["events"]]
        assert seen == list(range(1, 31))

    async def test_tokens_are_made_by_one(self, airbyte: Airbyte) -> None:
        store = SharedStore()
        made: list[dict[str, str]] = []
        listeners: list[Listener] = []
        ready = anyio.Event()
        over = anyio.Event()

        async def run() -> None:
            async with assembled(store, airbyte.url, api_tokens=(), webhook_tokens=()) as (listener, _):
                made.append(listener.new_tokens)
                listeners.append(listener)
                if len(listeners) == 3:
                    ready.set()
                await over.wait()

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(run)
            with anyio.fail_after(30):
                await ready.wait()
            tokens = {name: token for new in made for name, token in new.items()}
            assert sum(len(new) for new in made) == len(tokens) == 2
            for listener in listeners:
                async with httpx.AsyncClient(
                    transport=httpx.ASGITransport(app=listener.app), base_url="http://listener"
                ) as client:
                    shown = bearer(tokens["api"])
                    assert (await client.get("/v1/jobs", headers=shown)).status_code == 200
                    webhook = await client.post(f"/webhooks/default/{tokens['webhook']}", json={"who": "knows"})
                    assert webhook.status_code == 200
            over.set()

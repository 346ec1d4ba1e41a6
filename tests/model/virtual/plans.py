"""Plans: what is done to everything, step by step, and what must hold in the end."""

from __future__ import annotations

from collections import Counter
from typing import Literal, TypeVar

import anyio
from hypothesis import strategies as st

from airbyte_events.events import Cursor, EventFilter
from airbyte_events.simulator.control_models import NewNotification
from airbyte_events.simulator.models import Job
from model.virtual.readers import Follower, PageReader, Reader, StreamReader
from model.virtual.stage import VirtualStage
from model.virtual.truth import (
    FOUND_WITHIN,
    WITHIN,
    check_follower,
    check_inbox,
    check_log,
    check_reader,
    check_waits,
    lacking,
    read_log,
)

T = TypeVar("T")

Step = tuple[float, str, int, int]
"""Seconds that pass before, what is done, and two numbers that choose among what it can be done to."""

PAUSES = (0.0, 0.0, 0.01, 0.05, 0.5, 2.0, 2.0, 10.0, 10.0, 35.0, 50.0, 130.0, 400.0, 900.0)
JUMPS = (-3600.0, -90.0, 90.0, 3600.0)
ENDS = ("succeeded", "failed", "cancelled")
API_FAULTS = (
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 500, "route": "GET /jobs/{id}"},
    {"kind": "status", "status": 401, "count": 3},
    {"kind": "reset", "probability": 0.5},
    {"kind": "truncated", "count": 2},
    {"kind": "html", "count": 2},
    {"kind": "empty", "count": 2},
    {"kind": "slow", "delay": 30.0},
    {"kind": "broken-list"},
    {"kind": "broken-list", "parameter": "updatedAtStart"},
)
WEBHOOK_FAULTS = ("lost", "late", "doubled", "reordered")
LIES: tuple[Literal["succeeded", "failed", "queued", "text-only"], ...] = ("succeeded", "failed", "queued", "text-only")

done: Counter[str] = Counter()
"""What all plans did, for the summary."""


class Play:
    """One plan under way."""

    def __init__(self, stage: VirtualStage, *, durable: bool) -> None:
        self.stage = stage
        self.durable = durable
        self.readers: list[Reader] = []
        self.followers: list[Follower] = []
        self.answered_since = 0.0
        """Since when Airbyte answers and the triggerer runs."""

    # What can be done.

    def begin(self, count: int, kind: int) -> None:
        """Some jobs begin."""
        for _ in range(count % 4 + 1):
            self.stage.airbyte.begin(("sync", "sync", "reset", "clear")[kind % 4])

    def begin_and_wait(self, count: int, kind: int) -> None:
        for _ in range(count % 4 + 1):
            self.stage.triggerer.wait(self.stage.airbyte.begin(("sync", "sync", "reset", "clear")[kind % 4]))

    def crowd(self, which: int, how: int) -> None:
        """More jobs at once than are read, confirmed or told one by one, a few of them waited for."""
        if len(self.stage.airbyte.jobs) < 400:
            jobs = [self.stage.airbyte.begin() for _ in range(120)]
            for job in jobs[which :: 11 + how]:
                self.stage.triggerer.wait(job)

    def end(self, which: int, how: int) -> None:
        if (job := _pick(self._active, which)) is not None:
            self.stage.airbyte.end(job, ENDS[how % 3])

    def end_all(self, _: int, how: int) -> None:
        for number, job in enumerate(self._active):
            self.stage.airbyte.end(job, ENDS[(how + number) % 3])

    def next_sync(self, which: int, _: int) -> None:
        """A connection whose job has ended begins another one."""
        airbyte = self.stage.airbyte
        job = _pick([each for each in airbyte.jobs if each.connection.current is None], which)
        if job is not None:
            airbyte.machine.run(airbyte.sim.world.start_job, job.connection)

    def wait(self, which: int, _: int) -> None:
        if (job := _pick(self.stage.airbyte.jobs, which)) is not None:
            self.stage.triggerer.wait(job)

    def lie(self, which: int, how: int) -> None:
        """A webhook that may be true, comes again, or says what is not so."""
        if (job := _pick(self.stage.airbyte.jobs, which)) is not None:
            self._notify(NewNotification(kind=LIES[how % 4], job_id=job.id), job)

    def press_test_button(self, _: int, how: int) -> None:
        self._notify(NewNotification(kind=("test", "hello")[how % 2]))

    def forge(self, which: int, how: int) -> None:
        """Somebody who knows the URL makes up the end of a job that is not there, or is running."""
        success = bool(how % 2)
        title = "Sync completed" if success else "Sync failure occurred"
        text = f"{title}: <http://airbyte|orders>"
        data: dict[str, object] = {"jobId": which + 1 if how < 4 else 1_000_000 + which, "success": success}
        data["finishedAt"] = "2026-03-01T09:00:00Z" if how % 3 else None
        blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]
        self.stage.forge({"text": text, "blocks": blocks, "data": data} if how != 7 else {"text": "what?"})

    def webhook_trouble(self, which: int, count: int) -> None:
        kind = WEBHOOK_FAULTS[which % 4]
        delay = {"late": 40.0, "reordered": 20.0}.get(kind)
        self.stage.airbyte.fault(kind, count=count + 1, delay=delay)

    def api_trouble(self, which: int, how: int) -> None:
        self.stage.airbyte.fault(**API_FAULTS[(8 * how + which) % len(API_FAULTS)])

    def airbyte_refuses(self, _: int, __: int) -> None:
        self.stage.airbyte.host.change(refusing=True)

    def airbyte_silent(self, _: int, __: int) -> None:
        self.stage.airbyte.host.change(silent=True)

    def airbyte_heals(self, _: int, __: int) -> None:
        self.stage.airbyte.host.change(refusing=False, silent=False)
        self.stage.airbyte.sim.faults.clear()
        self.answered_since = anyio.current_time()

    def tokens_expire(self, _: int, __: int) -> None:
        self.stage.airbyte.machine.run(self.stage.airbyte.sim.tokens.expire)

    async def listener_killed(self, _: int, __: int) -> None:
        await self.stage.listener.kill()

    async def listener_stops(self, _: int, __: int) -> None:
        await self.stage.listener.stop()

    async def listener_starts(self, _: int, __: int) -> None:
        if not self.stage.listener.running:
            await self.stage.listener.start()

    async def listener_restarts(self, _: int, __: int) -> None:
        await self.stage.listener.kill()
        await self.stage.listener.start()

    def listener_unreachable(self, _: int, how: int) -> None:
        self.stage.listener.host.change(**{("refusing", "silent", "holding")[how % 3]: True})

    def listener_reachable(self, _: int, __: int) -> None:
        self.stage.listener.host.change(refusing=False, silent=False, holding=False)

    async def triggerer_restarts(self, _: int, __: int) -> None:
        await self.stage.triggerer.kill()
        await anyio.sleep(0.5)
        await self.stage.triggerer.start()

    async def reader_joins(self, which: int, how: int) -> None:
        """Without a cursor, from the beginning of a log, or with one of another log."""
        if len(self.readers) >= 6:
            return
        epochs = list(self.stage.listener.stores)
        after = (None, Cursor(epochs[0], 0), Cursor(epochs[-1], 0), Cursor("abc", which))[how % 4] if epochs else None
        kind = PageReader if which % 3 == 2 else StreamReader
        self.readers.append(kind(self.stage.tasks, self.stage.network, after))
        await self.readers[-1].start()

    async def reader_leaves(self, which: int, _: int) -> None:
        if (reader := _pick([each for each in self.readers if each.running], which)) is not None:
            await reader.kill()

    async def reader_comes_back(self, which: int, _: int) -> None:
        if (reader := _pick([each for each in self.readers if not each.running], which)) is not None:
            await reader.start()

    def reader_stalls(self, which: int, _: int) -> None:
        if (reader := _pick(self.readers, which)) is not None:
            reader.stall()

    def reader_goes_on(self, which: int, _: int) -> None:
        if (reader := _pick(self.readers, which)) is not None:
            reader.go_on()

    def follower_joins(self, which: int, how: int) -> None:
        """Of all connections, or of one."""
        job = _pick(self.stage.airbyte.jobs, which) if how % 2 else None
        if len(self.followers) < 4:
            wanted = EventFilter(connection_ids=frozenset([job.connection.id] if job is not None else ()))
            self.followers.append(Follower(wanted))
            self.stage.triggerer.run_in_hub(self.followers[-1].run)

    def clock_jumps(self, which: int, how: int) -> None:
        programs = (self.stage.listener, self.stage.triggerer, self.stage.airbyte)
        programs[which % 3].machine.ahead += JUMPS[how % 4]

    # The plan.

    async def perform(self, steps: list[Step]) -> None:
        self.begin_and_wait(2, 0)
        self.follower_joins(0, 0)
        await self.reader_joins(0, 0)
        # The listener's first look says where the next one begins, whatever happens from now on.
        await anyio.sleep(3)
        for pause, name, which, how in steps:
            await anyio.sleep(pause)
            done[name] += 1
            result = getattr(self, name)(which, how)
            if result is not None:
                await result
            await anyio.lowlevel.checkpoint()
            self._check_meanwhile()
        await self._calm()
        await self._check_in_the_end()

    def _check_meanwhile(self) -> None:
        airbyte, triggerer = self.stage.airbyte, self.stage.triggerer
        troubled = any(not each.spent for each in airbyte.sim.faults.armed() if each.fault.kind not in WEBHOOK_FAULTS)
        if troubled or airbyte.host.refusing or airbyte.host.silent or not triggerer.running:
            self.answered_since = anyio.current_time()
        check_waits(triggerer.waits, airbyte.ended, self.answered_since)

    async def _calm(self) -> None:
        """Everything works again, every job ends, and time passes."""
        stage = self.stage
        self.airbyte_heals(0, 0)
        self.listener_reachable(0, 0)
        await self.listener_starts(0, 0)
        self.end_all(0, 0)
        for reader in self.readers:
            reader.go_on()
            if not reader.running:
                await reader.start()
        await stage.until(lambda: all(wait.ended_at is not None for wait in stage.triggerer.waits), WITHIN)
        await anyio.sleep(max(0.0, self.answered_since + FOUND_WITHIN - anyio.current_time()))

    async def _check_in_the_end(self) -> None:
        stage = self.stage
        listener = stage.listener
        jobs = stage.airbyte.sim.world.jobs
        check_waits(stage.triggerer.waits, stage.airbyte.ended, self.answered_since)
        for follower in self.followers:
            check_follower(follower, stage)
            assert not lacking(follower, stage), f"{lacking(follower, stage)} were not told"
        logs = {epoch: await read_log(store) for epoch, store in listener.stores.items() if store is not listener.store}
        logs[listener.store.epoch] = last = await read_log(listener.store)
        for log in logs.values():
            check_log(log, jobs)
        if self.durable:
            missing = stage.airbyte.ended.keys() - {event.ref.job_id for event in last if event.terminal}
            assert not missing, f"the log lacks the ends of jobs {missing}"
        for reader in self.readers:
            check_reader(reader, logs)
            assert reader.at(listener.store.epoch, len(last)), f"{reader.stretches[-1:]} of {len(last)}"
        await check_inbox(stage, durable=self.durable)
        done["events"] += sum(map(len, logs.values()))
        done["events read"] += sum(len(each.events) for reader in self.readers for each in reader.stretches)
        done["waits"] += len(stage.triggerer.waits)
        done["ends told to followers"] += sum(len(each.told) for each in self.followers)
        done["webhooks"] += len(await stage.acknowledged())
        done["virtual seconds"] += round(anyio.current_time())

    def _notify(self, what: NewNotification, job: Job | None = None) -> None:
        self.stage.airbyte.machine.run(self.stage.airbyte.sim.notify, what, job)

    @property
    def _active(self) -> list[Job]:
        return [job for job in self.stage.airbyte.jobs if not job.terminal]


def _pick(things: list[T], which: int) -> T | None:
    return things[which % len(things)] if things else None


_OFTEN = ("begin_and_wait", "end", "begin", "end_all", "wait", "lie")
OPERATIONS = sorted(
    name for name in vars(Play) if not name.startswith("_") and name != "perform" and callable(vars(Play)[name])
)

steps = st.lists(
    st.tuples(st.sampled_from(PAUSES), st.sampled_from((*OPERATIONS, *_OFTEN)), st.integers(0, 7), st.integers(0, 7)),
    min_size=12,
    max_size=30,
)

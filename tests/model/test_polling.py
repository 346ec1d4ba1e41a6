"""How soon polling detects completions, and what that costs Airbyte: a hub without a listener, and a listener alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from statistics import quantiles
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events._utils.times import parse_time, utcnow
from airbyte_events.events import Progress
from airbyte_events.feed.client import FeedClient
from airbyte_events.hub.hub import Hub
from airbyte_events.monitor.pace import SAVED
from airbyte_events.monitor.progress import BURST
from airbyte_events.simulator import Script
from model.virtual.clock import in_virtual_time, play
from model.virtual.readers import StreamReader
from model.virtual.secrets import API_TOKEN
from model.virtual.stage import VirtualStage, staged
from model.virtual.truth import read_log

JOBS = 400
LINE_SECONDS = 180.0
"""How often a waiting task logs its progress."""

STEP = 1.37
"""Seconds between two completions: not in step with the polls."""


def lists(stage: VirtualStage) -> int:
    return sum(1 for request, _ in stage.airbyte.host.answered if request.url.path.endswith("/jobs"))


def lines(stage: VirtualStage, seen: dict[int, Progress]) -> Callable[[Hub], Coroutine[None, None, None]]:
    """Return what reads the progress of each waiting task as often as its log has a line, and puts it into ``seen``."""

    async def read(hub: Hub) -> None:
        while True:
            waits = list(stage.triggerer.waits)
            for wait in waits:
                if (progress := await hub.progress(wait.job.id, max_age=LINE_SECONDS / 2)) is not None:
                    seen[wait.job.id] = progress
                await anyio.sleep(LINE_SECONDS / len(waits))

    return read


async def delays(stage: VirtualStage, count: int = JOBS) -> tuple[list[float], float]:
    """Let jobs complete one after the other; return after how many seconds each was detected, and lists a minute."""
    jobs = [stage.airbyte.begin() for _ in range(count)]
    waits = [stage.triggerer.wait(job) for job in jobs]
    await anyio.sleep(60)
    before, began = lists(stage), anyio.current_time()
    for wait in random.Random(11).sample(waits, count):
        stage.airbyte.end(wait.job)
        await anyio.sleep(STEP)
    per_minute = (lists(stage) - before) / (anyio.current_time() - began) * 60
    await stage.until(lambda: all(wait.ended_at is not None for wait in waits), 60)
    return [(wait.ended_at or 0) - stage.airbyte.ended[wait.job.id] for wait in waits], per_minute


@in_virtual_time
async def test_half_are_detected_within_half_an_interval_by_20_requests_a_minute() -> None:
    async with staged(listens=False, listener=False) as stage:
        seen, per_minute = await delays(stage)
    hundredths = quantiles(seen, n=100)
    # Half of 3 s, and what a response takes here.
    assert hundredths[49] <= 1.5 + 0.1
    assert max(seen) <= 4.0 + 0.1
    assert hundredths[98] <= 4.0
    # And the saved ones, and now and then one for refreshes.
    assert per_minute <= 22


@pytest.mark.parametrize(("count", "usual"), [(1, 60), (10, 300)])
def test_where_usual_durations_are_known_half_are_detected_within_1_5_s(count: int, usual: float) -> None:
    """By 20 requests a minute in the mean: some are saved while completions are far, and sent while one is near."""

    async def main() -> None:
        varying = random.Random(5)
        seen: list[float] = []
        async with staged(listens=False, listener=False) as stage:
            world, machine = stage.airbyte.sim.world, stage.airbyte.machine
            connections = [machine.run(world.add_connection, Script.hanging()) for _ in range(count)]
            for turn in range(3 + 120 // count):
                if turn == 3:
                    seen.clear()
                    before, began = lists(stage), anyio.current_time()
                waits = [stage.triggerer.wait(machine.run(world.start_job, each, "sync")) for each in connections]
                elapsed = 0.0
                for at, wait in zip(sorted(usual * varying.uniform(0.9, 1.1) for _ in waits), waits, strict=True):
                    await anyio.sleep(at - elapsed)
                    elapsed = at
                    stage.airbyte.end(wait.job)
                await stage.until(lambda waits=waits: all(wait.ended_at is not None for wait in waits), 60)  # type: ignore[misc]
                seen += [(wait.ended_at or 0) - stage.airbyte.ended[wait.job.id] for wait in waits]
            per_minute = (lists(stage) - before) / (anyio.current_time() - began) * 60
        hundredths = quantiles(seen, n=100)
        assert hundredths[49] <= 1.6
        assert hundredths[98] <= 4.0
        assert per_minute <= 21

    play(main)


@pytest.mark.parametrize("count", [1, 30, 1_000])
def test_however_many_tasks_wait_one_list_is_sent_an_interval(count: int) -> None:
    async def main() -> None:
        async with staged(listens=False, listener=False) as stage:
            for _ in range(count):
                stage.triggerer.wait(stage.airbyte.begin())
            await anyio.sleep(120)
            before = len(stage.airbyte.host.answered)
            await anyio.sleep(300)
            # A hundred lists, and a few requests for refreshes and tokens.
            assert 90 <= len(stage.airbyte.host.answered) - before <= 110

    play(main)


@in_virtual_time
async def test_with_the_log_lines_of_a_thousand_tasks_requests_are_20_a_minute() -> None:
    seen: dict[int, Progress] = {}

    async with staged(listens=False, listener=False) as stage:
        for _ in range(999):
            stage.triggerer.wait(stage.airbyte.begin())
        # Lists of running jobs leave it out.
        queued = stage.triggerer.wait(stage.airbyte.begin(script=Script.hanging("pending")))
        await anyio.sleep(60)
        stage.triggerer.run_in_hub(lines(stage, seen))
        before = len(stage.airbyte.host.answered)
        await anyio.sleep(15 * 60)
        requests = stage.airbyte.host.answered[before:]
        # Tokens, refused ones, lists of refreshes and spot checks included. Ten were saved before, and ten may be lent.
        assert len(requests) <= 15 * 20 + 2 * SAVED
        assert len(seen) == 1_000
        assert queued.job.id in seen


@in_virtual_time
async def test_a_slow_airbyte_spends_a_twentieth_of_the_time_on_polls() -> None:
    async with staged(listens=False, listener=False) as stage:
        stage.airbyte.fault("slow", delay=1.0, route="GET /jobs")
        for _ in range(5):
            stage.triggerer.wait(stage.airbyte.begin())
        await anyio.sleep(600)
        before = lists(stage)
        await anyio.sleep(3600)
        assert 3600 / 25 <= lists(stage) - before <= 3600 / 20


@in_virtual_time
async def test_one_slow_list_does_not_slow_down_the_next_ones_for_long() -> None:
    async with staged(listens=False, listener=False) as stage:
        stage.triggerer.wait(stage.airbyte.begin())
        await anyio.sleep(60)
        stage.airbyte.fault("slow", delay=2.0, count=1, route="GET /jobs")
        await anyio.sleep(60)
        before = lists(stage)
        await anyio.sleep(60)
        assert lists(stage) - before >= 18


async def until_proven(stage: VirtualStage, count: int) -> None:
    """Have so many tasks wait, with webhooks that have proven to arrive."""
    for job in [stage.airbyte.begin() for _ in range(count + 6)]:
        stage.triggerer.wait(job)
    await anyio.sleep(10)
    for wait in stage.triggerer.waits[count:]:
        stage.airbyte.end(wait.job)
        await anyio.sleep(1)
    del stage.triggerer.waits[count:]
    # Lists overlap by half a minute: until then they have all jobs.
    await anyio.sleep(60)


@pytest.mark.parametrize("count", [100, 1_000])
def test_with_a_listener_requests_are_10_a_minute(count: int) -> None:
    """With the log lines of all tasks, and with what no webhook announces."""
    seen: dict[int, Progress] = {}

    async def main() -> None:
        async with staged() as stage:
            await until_proven(stage, count)
            stage.triggerer.run_in_hub(lines(stage, seen))
            before = len(stage.airbyte.host.answered)
            await anyio.sleep(10 * 60)
            assert len(stage.airbyte.host.answered) - before <= 10 * 10
            assert len(seen) == count
            now = utcnow()
            # Each page of a hundred jobs has its turn three times a minute.
            assert max(now - each.observed_at for each in seen.values()) <= timedelta(seconds=2 * LINE_SECONDS)
            for wait in stage.triggerer.waits[:5]:
                stage.airbyte.end(wait.job, "cancelled")
                await stage.until(lambda wait=wait: wait.ended_at is not None, 35)  # type: ignore[misc]

    play(main)


def observed_at(progress: dict[str, Any]) -> datetime:
    found = parse_time(progress["observed_at"])
    assert found is not None
    return found


@in_virtual_time
async def test_log_lines_take_no_turn_of_a_viewer() -> None:
    async with staged() as stage, httpx.AsyncClient(transport=stage.network) as http:
        await until_proven(stage, 300)
        stage.triggerer.run_in_hub(lines(stage, {}))
        viewed = stage.triggerer.waits[0].job.id
        feed = FeedClient(http, "http://listener", API_TOKEN)
        before = len(stage.airbyte.host.answered)
        ages = []
        for _ in range(300):
            await anyio.sleep(2)
            found = await feed.request("GET", "/v1/progress", params={"instance": "default", "job_id": str(viewed)})
            ages += [utcnow() - observed_at(each) for each in found["progress"]]
        assert len(ages) == 300
        # The half of six a minute, with which each page of all jobs has its turn.
        assert max(ages) <= timedelta(seconds=25)
        assert len(stage.airbyte.host.answered) - before <= 10 * (5 + 6 + 2) + BURST


class TestListener:
    """What no webhook announces, and no task waits for."""

    @in_virtual_time
    async def test_all_is_known_within_60_s_by_two_requests_a_minute(self) -> None:
        async with staged(listens=False) as stage:
            await stage.triggerer.kill()
            await anyio.sleep(100)
            assert await self.slowest(stage) <= 60
            assert await self.lists_a_minute(stage) <= 2

    @in_virtual_time
    async def test_all_is_known_within_15_s_while_somebody_looks(self) -> None:
        async with staged(listens=False) as stage:
            await stage.triggerer.kill()
            await anyio.sleep(100)
            reader = StreamReader(stage.tasks, stage.network)
            await reader.start()
            # An exchange, and a poll.
            await anyio.sleep(15)
            assert await self.slowest(stage) <= 15
            assert await self.lists_a_minute(stage) <= 6
            await reader.kill()
            await anyio.sleep(200)
            assert await self.lists_a_minute(stage) <= 2

    async def slowest(self, stage: VirtualStage) -> float:
        """Return the most seconds until the listener knows the cancellation of a job."""
        took = []
        for _ in range(40):
            job = stage.airbyte.begin()
            await anyio.sleep(7.3)
            stage.airbyte.end(job, "cancelled")
            began = anyio.current_time()
            while job.id not in await self.known(stage):  # noqa: ASYNC110  # only time passes
                await anyio.sleep(0.1)
            took.append(anyio.current_time() - began)
        return max(took)

    async def known(self, stage: VirtualStage) -> set[int]:
        return {event.ref.job_id for event in await read_log(stage.listener.store) if event.terminal}

    async def lists_a_minute(self, stage: VirtualStage) -> float:
        before = lists(stage)
        await anyio.sleep(1200)
        return (lists(stage) - before) / 20

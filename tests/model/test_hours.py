"""What takes hours: each kind of outage in virtual time, and how long somebody waits at the most."""

from __future__ import annotations

import time
from collections.abc import Iterable

import anyio
import pytest

from airbyte_events.bus.bus import BUFFER
from airbyte_events.errors import WaitTimeout
from airbyte_events.events import EventFilter, JobEvent
from airbyte_events.feed.client import HELLO_SECONDS, SILENCE_SECONDS
from airbyte_events.hub.hub import GRACE_SECONDS, RECHECK_SECONDS
from airbyte_events.monitor.poller import Ticks
from model.virtual.clock import in_virtual_time
from model.virtual.readers import Follower, PageReader, StreamReader
from model.virtual.stage import VirtualStage, keeping, staged
from model.virtual.triggerer import Wait
from model.virtual.truth import check_follower, check_inbox, check_log, check_reader, check_status, lacking, read_log

HOUR = 3600.0
LONG = 900.0
"""Seconds: longer than each interval and back-off, the ten minutes of a recheck included."""
PUSH = 1.0
"""Seconds: a webhook, its confirmation, the feed."""
TICK = Ticks().unproven * 1.1 + PUSH
"""Seconds from one look to the next while somebody waits, with jitter, and the look."""
FALLBACK = GRACE_SECONDS + PUSH
"""Seconds until a feed that is known to be down is replaced by polling, which looks at once."""
RECHECK = RECHECK_SECONDS * 1.1 + PUSH
"""Seconds until the hub looks though all seems well."""
LAST_LOOK = 30.0 + 1 + PUSH
"""Seconds: when the time is up, Airbyte is asked once more for so long."""
PUT_OFF = 300.0 + 60.0 + PUSH
"""Seconds: after failures, the longest from one poll to the next, and the longest that a request is put off then."""


def begin(stage: VirtualStage, count: int = 1, type: str = "sync") -> list[Wait]:
    return [stage.triggerer.wait(stage.airbyte.begin(type)) for _ in range(count)]


def end(stage: VirtualStage, waits: Iterable[Wait], status: str = "succeeded") -> None:
    for wait in waits:
        stage.airbyte.end(wait.job, status)


async def settled(stage: VirtualStage) -> None:
    """The stream is joined, the first looks are over."""
    await stage.until(lambda: stage.triggerer.hub is not None and stage.triggerer.hub.following, 60)
    await anyio.sleep(5)


async def told(stage: VirtualStage, waits: list[Wait], *, within: float) -> float:
    """Everyone is told the truth within so many seconds from now."""
    took = await stage.until(lambda: all(wait.ended_at is not None for wait in waits), within)
    for wait in waits:
        assert isinstance(wait.result, JobEvent), wait.result
        check_status(wait.result, wait.job)
    return took


async def prove_push(stage: VirtualStage) -> None:
    """Webhooks have announced the last ends: polling becomes seldom."""
    waits = begin(stage, 3)
    await anyio.sleep(5)
    end(stage, waits)
    await told(stage, waits, within=PUSH)


class TestAirbyteIsAway:
    @in_virtual_time
    async def test_i4_for_an_hour_in_which_jobs_end(self) -> None:
        """Its webhooks come, the API does not answer: what they tell waits to be confirmed."""
        async with staged() as stage:
            await settled(stage)
            waits = begin(stage, 3) + begin(stage, 2, "clear")
            await anyio.sleep(60)
            fault = stage.airbyte.fault("status", status=503)
            end(stage, waits[:2])
            end(stage, waits[2:], "failed")
            await anyio.sleep(HOUR)
            assert not any(wait.ended_at for wait in waits)
            stage.airbyte.sim.faults.clear(fault)
            await told(stage, waits, within=PUT_OFF)
            await anyio.sleep(60)
            await check_inbox(stage, durable=True)

    @in_virtual_time
    async def test_i4_for_an_hour_as_a_whole(self) -> None:
        """No connection, no webhook."""
        async with staged() as stage:
            await settled(stage)
            waits = begin(stage, 5)
            await anyio.sleep(60)
            stage.airbyte.host.change(refusing=True)
            stage.airbyte.fault("lost")
            end(stage, waits)
            await anyio.sleep(HOUR)
            stage.airbyte.host.change(refusing=False)
            await told(stage, waits, within=PUT_OFF)

    @in_virtual_time
    async def test_i4_and_more_jobs_wait_than_are_read_at_a_time(self) -> None:
        async with staged(listens=False) as stage:
            waits = begin(stage, 150)
            await anyio.sleep(60)
            stage.airbyte.host.change(silent=True)
            end(stage, waits)
            await anyio.sleep(HOUR)
            stage.airbyte.host.change(silent=False)
            await told(stage, waits, within=PUT_OFF)

    @in_virtual_time
    async def test_i3_a_task_that_begins_to_wait_meanwhile_is_told_afterwards(self) -> None:
        async with staged() as stage:
            await settled(stage)
            stage.airbyte.host.change(refusing=True)
            stage.airbyte.fault("lost")
            jobs = [stage.airbyte.begin() for _ in range(3)]
            await anyio.sleep(60)
            waits = [stage.triggerer.wait(job) for job in jobs]
            await anyio.sleep(60)
            end(stage, waits)
            await anyio.sleep(HOUR)
            stage.airbyte.host.change(refusing=False)
            await told(stage, waits, within=PUT_OFF)

    @in_virtual_time
    async def test_i5_a_listener_that_starts_meanwhile_finds_what_has_ended_since(self) -> None:
        """Not only what ended in the last minutes before its first look that is answered."""
        async with staged() as stage:
            await stage.listener.kill()
            stage.airbyte.fault("lost")
            stage.airbyte.host.change(refusing=True)
            await stage.listener.start()
            await anyio.sleep(60)
            jobs = [stage.airbyte.begin() for _ in range(3)]
            for job in jobs:
                stage.airbyte.end(job)
            await anyio.sleep(HOUR)
            await stage.listener.kill()
            await stage.listener.start()
            await anyio.sleep(60)
            stage.airbyte.host.change(refusing=False)
            await anyio.sleep(PUT_OFF)
            log = await read_log(stage.listener.store)
            assert {event.ref.job_id for event in log if event.terminal} == {job.id for job in jobs}

    @in_virtual_time
    async def test_lists_that_failed_for_a_moment_are_not_given_up(self) -> None:
        """Followers live on them, and would be told nothing for ten minutes."""
        async with staged(listens=False, listener=False) as stage:
            follower = Follower(EventFilter())
            stage.triggerer.run_in_hub(follower.run)
            begin(stage)
            job = stage.airbyte.begin()
            await anyio.sleep(60)
            # All attempts of one look.
            stage.airbyte.fault("status", status=503, count=5, route="GET /jobs")
            await anyio.sleep(TICK)
            stage.airbyte.end(job)
            await stage.until(lambda: not lacking(follower, stage), 60 + TICK)
            check_follower(follower, stage)


class TestTheListenerIsAway:
    @in_virtual_time
    async def test_a_stream_that_cannot_be_joined_is_not_waited_for(self) -> None:
        async with staged(listener=False) as stage:
            (wait,) = begin(stage)
            await stage.until(lambda: stage.airbyte.reads(wait.job) == 1, PUSH)

    @in_virtual_time
    async def test_without_one_nobody_is_asked_for_a_reason_that_airbyte_does_not_have(self) -> None:
        async with staged(listens=False, listener=False) as stage:
            stage.airbyte.fault("status", status=404, route="POST /jobs/get_without_logs")
            (wait,) = waits = begin(stage)
            end(stage, waits, "failed")
            await told(stage, waits, within=PUSH)
            assert isinstance(wait.result, JobEvent)
            assert wait.result.error is None

    @in_virtual_time
    async def test_i4_throughout(self) -> None:
        async with staged(listener=False) as stage:
            waits = begin(stage, 3)
            await anyio.sleep(5)
            end(stage, waits)
            await told(stage, waits, within=FALLBACK)
            # From then on the hub polls.
            waits = begin(stage, 3, "reset")
            await anyio.sleep(LONG)
            end(stage, waits, "cancelled")
            await told(stage, waits, within=TICK)

    @in_virtual_time
    async def test_i4_from_one_moment_to_the_next_for_an_hour(self) -> None:
        async with staged() as stage:
            await settled(stage)
            waits = begin(stage, 4)
            await anyio.sleep(60)
            await stage.listener.kill()
            end(stage, waits[:2])
            await told(stage, waits[:2], within=FALLBACK)
            await anyio.sleep(HOUR)
            end(stage, waits[2:3])
            await told(stage, waits[2:3], within=TICK)
            await stage.listener.start()
            await anyio.sleep(60)
            end(stage, waits[3:])
            assert await told(stage, waits[3:], within=PUSH) < PUSH

    @in_virtual_time
    async def test_i4_and_its_machine_with_it_so_that_nobody_is_told(self) -> None:
        """No connection is reset: the stream just says nothing any more."""
        async with staged() as stage:
            await settled(stage)
            waits = begin(stage, 3)
            await anyio.sleep(60)
            stage.listener.host.change(silent=True)
            end(stage, waits)
            await told(stage, waits, within=SILENCE_SECONDS + FALLBACK)

    @in_virtual_time
    async def test_i5_readers_are_told_afterwards_what_ended_meanwhile(self) -> None:
        async with staged() as stage:
            await settled(stage)
            stream, pages = (kind(stage.tasks, stage.network) for kind in (StreamReader, PageReader))
            await stream.start()
            await pages.start()
            jobs = [stage.airbyte.begin() for _ in range(5)]
            await anyio.sleep(400)
            await stage.listener.kill()
            for job in jobs:
                stage.airbyte.end(job)
            await anyio.sleep(LONG)
            await stage.listener.start()
            await anyio.sleep(30)
            log = await read_log(stage.listener.store)
            check_log(log, stage.airbyte.sim.world.jobs)
            for reader in (stream, pages):
                check_reader(reader, {stage.listener.store.epoch: log})
                assert reader.at(stage.listener.store.epoch, len(log))
                assert len(reader.stretches) == 1
                assert {event.ref.job_id for event in reader.stretches[0].events if event.terminal} == {1, 2, 3, 4, 5}

    @in_virtual_time
    async def test_followers_are_told_each_end_once(self) -> None:
        async with staged() as stage:
            await settled(stage)
            follower = Follower(EventFilter())
            stage.triggerer.run_in_hub(follower.run)
            await anyio.sleep(10)
            jobs = [stage.airbyte.begin() for _ in range(4)]
            stage.airbyte.end(jobs[0])
            await anyio.sleep(60)
            await stage.listener.kill()
            stage.airbyte.end(jobs[1], "failed")
            await anyio.sleep(LONG)
            stage.airbyte.end(jobs[2], "cancelled")
            await stage.triggerer.kill()
            await anyio.sleep(LONG)
            stage.airbyte.end(jobs[3])
            await stage.listener.start()
            await stage.triggerer.start()
            await stage.until(lambda: not lacking(follower, stage), TICK)
            check_follower(follower, stage)

    @in_virtual_time
    async def test_followers_are_told_what_ended_while_a_listener_lost_its_log(self) -> None:
        """It is back before polling takes over, and has published the end before the stream is joined again."""
        async with staged(keeping("lost")) as stage:
            await settled(stage)
            follower = Follower(EventFilter())
            stage.triggerer.run_in_hub(follower.run)
            job = stage.airbyte.begin()
            await anyio.sleep(60)
            stage.airbyte.fault("lost")
            stage.airbyte.host.refused.add(stage.triggerer.machine)
            await stage.listener.kill()
            stage.airbyte.end(job)
            await stage.listener.start()
            await anyio.sleep(20)
            stage.airbyte.host.refused.clear()
            await stage.until(lambda: not lacking(follower, stage), 60 + PUSH)
            check_follower(follower, stage)


class TestTheStream:
    @in_virtual_time
    async def test_i4_is_held_back_by_a_proxy_from_the_start(self) -> None:
        """Its head comes, and then nothing."""
        async with staged(listener=False) as stage:
            stage.listener.host.change(holding=True)
            await stage.listener.start()
            waits = begin(stage, 3)
            await anyio.sleep(5)
            end(stage, waits)
            await told(stage, waits, within=FALLBACK)
            waits = begin(stage, 3)
            await anyio.sleep(LONG)
            end(stage, waits)
            await told(stage, waits, within=TICK)

    @in_virtual_time
    async def test_i4_is_held_back_by_a_proxy_later(self) -> None:
        async with staged() as stage:
            await settled(stage)
            await prove_push(stage)
            waits = begin(stage, 3)
            await anyio.sleep(60)
            stage.listener.host.change(holding=True)
            end(stage, waits)
            await told(stage, waits, within=SILENCE_SECONDS + FALLBACK)
            assert HELLO_SECONDS < GRACE_SECONDS, "an attempt in vain is over before polling takes over"

    @in_virtual_time
    async def test_i4_breaks_again_and_again(self) -> None:
        """It is never down for long enough to be replaced, nor up for long enough to be of use."""
        async with staged() as stage:
            await settled(stage)
            waits = begin(stage, 3)
            stage.airbyte.fault("lost")
            async with anyio.create_task_group() as tasks:

                async def flap() -> None:
                    while True:
                        await anyio.sleep(5)
                        stage.listener.host.change(refusing=True)
                        for exchange in list(stage.listener.host.exchanges):
                            exchange.breaks()
                        await anyio.sleep(5)
                        stage.listener.host.change(refusing=False)

                tasks.start_soon(flap)
                await anyio.sleep(LONG)
                end(stage, waits)
                await told(stage, waits, within=2 * TICK + 2 * 15)
                tasks.cancel_scope.cancel()

    @in_virtual_time
    async def test_i4_is_that_of_a_listener_that_is_alive_and_blind(self) -> None:
        """It sees neither a webhook nor Airbyte: the hub looks for itself every ten minutes."""
        async with staged() as stage:
            await settled(stage)
            await prove_push(stage)
            waits = begin(stage, 3)
            await anyio.sleep(60)
            stage.airbyte.fault("lost")
            stage.airbyte.host.refused.add(stage.listener.machine)
            end(stage, waits)
            await told(stage, waits, within=RECHECK)
            assert stage.triggerer.hub is not None
            assert stage.triggerer.hub.following
            await anyio.sleep(LONG)
            waits = begin(stage, 2)
            await anyio.sleep(LONG)
            end(stage, waits)
            await told(stage, waits, within=RECHECK)

    @in_virtual_time
    async def test_i5_begins_anew_for_a_cursor_of_another_log(self) -> None:
        """The listener has lost its log: readers are told to read states again, tasks are told the truth."""
        async with staged(keeping("lost")) as stage:
            await settled(stage)
            stream, pages = (kind(stage.tasks, stage.network) for kind in (StreamReader, PageReader))
            await stream.start()
            await pages.start()
            waits = begin(stage, 4)
            await anyio.sleep(30)
            end(stage, waits[:2])
            await told(stage, waits[:2], within=PUSH)
            await stage.listener.kill()
            end(stage, waits[2:3], "failed")
            await anyio.sleep(10)
            await stage.listener.start()
            # It is joined again, and what happened before is in the states.
            await told(stage, waits[2:3], within=15 + PUSH)
            await anyio.sleep(60)
            end(stage, waits[3:])
            await told(stage, waits[3:], within=PUSH)
            await anyio.sleep(60)
            logs = {epoch: await read_log(store) for epoch, store in stage.listener.stores.items()}
            assert len(logs) == 2
            for reader in (stream, pages):
                check_reader(reader, logs)
                assert [stretch.epoch for stretch in reader.stretches] == list(logs)
                assert reader.at(stage.listener.store.epoch, len(logs[stage.listener.store.epoch]))


class TestClocks:
    @pytest.mark.parametrize(("listener", "triggerer"), [(-HOUR, -HOUR), (HOUR, HOUR), (-HOUR, HOUR), (HOUR, -HOUR)])
    def test_i4_an_hour_apart(self, listener: float, triggerer: float) -> None:
        @in_virtual_time
        async def run() -> None:
            async with staged(listener=False) as stage:
                stage.listener.machine.ahead, stage.triggerer.machine.ahead = listener, triggerer
                await stage.listener.start()
                await settled(stage)
                follower = Follower(EventFilter())
                stage.triggerer.run_in_hub(follower.run)
                pushed, cleared = begin(stage, 3), begin(stage, 2, "clear")
                await anyio.sleep(60)
                end(stage, pushed)
                await told(stage, pushed, within=PUSH)
                # What no webhook announces is found by looks.
                end(stage, cleared)
                await told(stage, cleared, within=TICK)
                polled = begin(stage, 2)
                await stage.listener.kill()
                await anyio.sleep(LONG)
                end(stage, polled, "failed")
                await told(stage, polled, within=TICK)
                await stage.listener.start()
                await anyio.sleep(60)
                check_log(await read_log(stage.listener.store), stage.airbyte.sim.world.jobs)
                check_follower(follower, stage)
                assert not lacking(follower, stage)

        run()

    @pytest.mark.parametrize("ahead", [-HOUR, HOUR])
    def test_i5_an_hour_apart_at_the_first_look_of_all(self, ahead: float) -> None:
        @in_virtual_time
        async def run() -> None:
            async with staged(listener=False) as stage:
                job = stage.airbyte.begin()
                await anyio.sleep(60)
                stage.airbyte.end(job)
                await anyio.sleep(60)
                stage.listener.machine.ahead = ahead
                await stage.listener.start()
                await anyio.sleep(5)
                assert [event.ref.job_id for event in await read_log(stage.listener.store)] == [job.id]

        run()

    @pytest.mark.parametrize("jump", [-HOUR, HOUR])
    @pytest.mark.parametrize("whose", ["airbyte", "listener", "triggerer"])
    def test_i4_that_jump_by_an_hour(self, whose: str, jump: float) -> None:
        @in_virtual_time
        async def run() -> None:
            async with staged() as stage:
                await settled(stage)
                await prove_push(stage)
                first, second = begin(stage, 2), begin(stage, 2, "reset")
                await anyio.sleep(100)
                getattr(stage, whose).machine.ahead += jump
                await anyio.sleep(1)
                end(stage, first + second, "failed")
                await told(stage, first, within=2 * PUSH)
                await told(stage, second, within=TICK)
                # And without webhooks.
                stage.airbyte.fault("lost")
                third = begin(stage, 2)
                await anyio.sleep(100)
                end(stage, third)
                await told(stage, third, within=Ticks().proven * 1.1 + PUSH)

        run()

    @in_virtual_time
    async def test_i3_a_job_that_ended_before_its_deadline_has_not_timed_out_however_late_that_is_seen(self) -> None:
        async with staged() as stage:
            await settled(stage)
            job = stage.airbyte.begin()
            wait = stage.triggerer.wait(job, until=stage.triggerer.machine.run(time.time) + HOUR)
            await anyio.sleep(60)
            await stage.triggerer.kill()
            stage.airbyte.end(job)
            await anyio.sleep(2 * HOUR)
            await stage.triggerer.start()
            await told(stage, [wait], within=PUSH)

    @in_virtual_time
    async def test_i4_a_deadline_is_kept_though_airbyte_says_nothing(self) -> None:
        async with staged() as stage:
            stage.triggerer.machine.ahead = HOUR
            await settled(stage)
            wait = stage.triggerer.wait(stage.airbyte.begin(), until=stage.triggerer.machine.run(time.time) + HOUR)
            stage.airbyte.host.change(silent=True)
            await anyio.sleep(HOUR - 1)
            assert wait.ended_at is None
            await stage.until(lambda: wait.ended_at is not None, LAST_LOOK)
            assert isinstance(wait.result, WaitTimeout)


class TestCrowds:
    @in_virtual_time
    async def test_i6_who_does_not_read_costs_a_bounded_amount_and_misses_nothing(self) -> None:
        async with staged() as stage:
            await settled(stage)
            readers = [StreamReader(stage.tasks, stage.network) for _ in range(3)]
            for reader in readers:
                await reader.start()
            await anyio.sleep(1)
            for reader in readers[1:]:
                reader.stall()
            for _ in range(2):
                jobs = [stage.airbyte.begin() for _ in range(600)]
                await anyio.sleep(310)
                for job in jobs:
                    stage.airbyte.end(job)
                await anyio.sleep(60)
            assert stage.listener.listener is not None
            bus = stage.listener.listener.bus
            log = await read_log(stage.listener.store)
            assert len(log) > 1.5 * BUFFER
            assert bus.subscriptions >= len(readers)
            # Two of them do not read.
            assert bus.buffered_bytes <= 2 * BUFFER * max(event.weight for event in log)
            check_log(log, stage.airbyte.sim.world.jobs)
            assert sum(event.terminal for event in log) == 1200
            for reader in readers:
                reader.go_on()
            await anyio.sleep(60)
            for reader in readers:
                check_reader(reader, {stage.listener.store.epoch: log})
                assert reader.at(stage.listener.store.epoch, len(log))

"""Signals: raised once and resolved once, whatever restarts, and seen by nobody who does not ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.bus.bus import EventBus
from airbyte_events.errors import LeaseLost, SettingsError
from airbyte_events.events import (
    EVERYTHING,
    WHOLE_LOG,
    Cursor,
    EventFilter,
    JobError,
    JobEvent,
    JobRef,
    JobStatus,
    Progress,
    Signal,
    SignalKind,
    parse_status,
)
from airbyte_events.listener.histories import ENOUGH, Histories
from airbyte_events.listener.notify.filters import CompletionFilter
from airbyte_events.listener.notify.messages import Completion, cause_of, message_of
from airbyte_events.listener.settings import load
from airbyte_events.listener.settings.connections import ConnectionSettings
from airbyte_events.listener.settings.notify import NotifySettings
from airbyte_events.listener.signals import FAILING, MOST_RAISED, STALLED_AFTER, Signals
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.registry import store_location
from support.events import CONNECTION, event_of

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


class Scene:
    """A store, and what watches it."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.settings: dict[str, ConnectionSettings] = {}
        self.progress: dict[int, Progress] = {}
        self.asked: list[Collection[int]] = []

    async def read(self, job_ids: Collection[int], *, streams: bool = False, max_age: float) -> dict[int, Progress]:
        self.asked.append(job_ids)
        return {job_id: each for job_id, each in self.progress.items() if job_id in job_ids}

    async def watch(self) -> Signals:
        """A leader that has just started."""
        histories = Histories(self.store)
        await histories.load()
        signals = Signals("default", self.read, self.store, histories, self.settings)
        signals.raised = await signals._read_raised()
        return signals

    async def put(self, job_id: int, status: str = "running", ago: timedelta = timedelta(0), **fields: Any) -> JobEvent:
        """Store a job's state; it began so long ago."""
        now = utcnow()
        values: dict[str, Any] = {"started_at": now - ago, "duration_seconds": 60.0, **fields}
        if parse_status(status).terminal:
            values.setdefault("finished_at", now - ago + timedelta(seconds=60))
        appended = await self.store.append([replace(event_of(job_id, status), **values)])
        (event,) = appended.events
        assert isinstance(event, JobEvent)
        return event

    async def history(self, count: int = ENOUGH, ago: timedelta = 2 * HOUR) -> None:
        for job_id in range(1, count + 1):
            await self.put(job_id, "succeeded", ago)

    async def signals(self) -> list[tuple[str, bool]]:
        """What was raised and resolved, in order."""
        page = await self.store.read(0, wanted=EventFilter(jobs=False, signals=True))
        return [(event.signal.kind.value, event.signal.raised) for event in page.events]


@pytest.fixture(params=["memory", "sqlite"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'events.db'}"
    async with store_location(url).store() as store:
        yield Scene(store)


def moved(job_id: int, unchanged: float = 0.0, records: int = 5) -> Progress:
    return Progress(
        job_id=job_id,
        status=JobStatus.RUNNING,
        observed_at=utcnow(),
        records=records,
        unchanged_seconds=unchanged,
    )


async def test_a_slow_job_is_raised_once_and_resolved_when_it_completes(scene: Scene) -> None:
    await scene.history()
    await scene.put(50, ago=HOUR)
    for _ in range(2):
        # Each time as after a restart.
        signals = await scene.watch()
        await signals.check()
        await signals.check()
    assert await scene.signals() == [("slow", True)]
    await scene.put(50, "succeeded", HOUR)
    signals = await scene.watch()
    await signals.check()
    await signals.check()
    assert await scene.signals() == [("slow", True), ("slow", False)]
    assert signals.raised == {}


async def test_a_job_whose_streams_were_not_compared_has_not_stalled(scene: Scene) -> None:
    await scene.history()
    await scene.put(50)
    scene.progress[50] = replace(moved(50, 2 * STALLED_AFTER), streams_unchanged_seconds=0.0)
    await (await scene.watch()).check()
    assert await scene.signals() == []


async def test_a_job_stalls_and_only_progress_resolves_that(scene: Scene) -> None:
    await scene.history()
    await scene.put(50)
    scene.progress[50] = moved(50, STALLED_AFTER)
    await (await scene.watch()).check()
    assert await scene.signals() == [("stalled", True)]
    for unknown in ({}, {50: moved(50, 0)}):
        # Airbyte does not answer; a process that has just begun to ask.
        scene.progress = unknown
        await (await scene.watch()).check()
    assert await scene.signals() == [("stalled", True)]
    scene.progress = {50: moved(50, 0, records=6)}
    await (await scene.watch()).check()
    assert await scene.signals() == [("stalled", True), ("stalled", False)]
    scene.progress = {50: moved(50, STALLED_AFTER, records=6)}
    await (await scene.watch()).check()
    assert (await scene.signals())[2:] == [("stalled", True)], "it stalls again"


async def test_a_connection_fails_and_recovers(scene: Scene) -> None:
    await scene.history()
    for job_id in range(20, 20 + FAILING - 1):
        await scene.put(job_id, "failed")
    await (await scene.watch()).check()
    assert await scene.signals() == []
    reason = JobError(message="the disk\nis full " + "x" * 50_000, type="system_error")
    await scene.put(30, "failed", error=reason)
    await scene.put(31, "cancelled")
    await (await scene.watch()).check()
    await scene.put(32, "failed")
    signals = await scene.watch()
    await signals.check()
    ((signal,),) = [[each.signal for each in signals.raised.values()]]
    assert signal is not None
    assert "the disk is full xxx" in signal.message
    assert len(signal.message) < 400
    assert await scene.signals() == [("failing", True)]
    await scene.put(33, "succeeded")
    await (await scene.watch()).check()
    assert await scene.signals() == [("failing", True), ("failing", False)]


@pytest.mark.parametrize("key", [CONNECTION, "orders"])
async def test_a_connection_is_overdue_by_its_settings(scene: Scene, key: str) -> None:
    await scene.put(1, "succeeded", 3 * HOUR, names={"connection": "Orders"})
    await (await scene.watch()).check()
    assert await scene.signals() == [], "off by default"
    scene.settings = {key: ConnectionSettings(fresh_within=3600.0)}
    for _ in range(2):
        await (await scene.watch()).check()
    assert await scene.signals() == [("overdue", True)]
    await scene.put(2, "failed")
    await (await scene.watch()).check()
    await scene.put(3, "succeeded", names={"connection": "Orders"})
    await (await scene.watch()).check()
    assert await scene.signals() == [("overdue", True), ("overdue", False)]


async def test_a_clock_that_was_set_back_resolves_nothing(scene: Scene) -> None:
    await scene.history(ago=3 * HOUR)
    await scene.put(50, ago=HOUR)
    scene.settings = {CONNECTION: ConnectionSettings(fresh_within=3600.0)}
    await (await scene.watch()).check()
    before = await scene.signals()
    assert sorted(before) == [("overdue", True), ("slow", True)]
    await (await scene.watch()).check(now=utcnow() - timedelta(days=2))
    assert await scene.signals() == before


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 0), ({}, 1), ({}, ENOUGH - 1), ({"stalled_after": 0.0, "slow_factor": 0.0}, ENOUGH)],
)
async def test_without_a_history_or_switched_off_there_are_none(
    scene: Scene, settings: dict[str, float], count: int
) -> None:
    await scene.history(count)
    scene.settings = {CONNECTION: ConnectionSettings(**settings)}
    await scene.put(50, ago=HOUR)
    scene.progress[50] = moved(50, 10 * STALLED_AFTER)
    await (await scene.watch()).check()
    assert await scene.signals() == []
    assert scene.asked == [], "progress costs nothing where nothing can stall"


async def test_settings_apply_without_a_history(scene: Scene) -> None:
    scene.settings = {CONNECTION: ConnectionSettings(stalled_after=60.0, slow_factor=2.0)}
    await scene.put(1, "succeeded", 2 * HOUR)
    await scene.put(50, ago=HOUR)
    scene.progress[50] = moved(50, 61.0)
    await (await scene.watch()).check()
    assert sorted(await scene.signals()) == [("slow", True), ("stalled", True)]


async def test_consumers_that_do_not_ask_see_none(scene: Scene) -> None:
    await scene.history()
    async with EventBus(scene.store) as bus:
        with bus.subscribe(wanted=EVERYTHING) as jobs, bus.subscribe(wanted=WHOLE_LOG) as everything:
            started = await scene.put(50, ago=HOUR)
            await (await scene.watch()).check()
            completed = await scene.put(50, "succeeded", HOUR)
            with anyio.fail_after(30):
                assert [(await anext(jobs)).cursor for _ in range(2)] == [started.cursor, completed.cursor]
                seen = [await anext(everything) for _ in range(3)]
    signal = seen[1]
    assert signal.signal is not None
    assert signal.envelope("https://airbyte")["type"] == "io.airbyte.job.slow"
    assert signal.data()["job_id"] == 50
    assert JobEvent.from_data(signal.data(), signal.cursor) == signal
    for before in (0, started.sequence):
        # A subscriber that resumes, within what the bus has in memory and before it.
        page = await scene.store.read(before)
        assert all(event.signal is None for event in page.events)
    assert all(state.signal is None for state in await scene.store.jobs())
    assert [event.status for event in await scene.store.history(JobRef("default", 50))] == ["running", "succeeded"]


async def test_a_leader_that_has_lost_its_lease_raises_nothing(scene: Scene) -> None:
    await scene.history()
    await scene.put(50, ago=HOUR)
    lease = await scene.store.acquire("sources/default", "one", 60.0)
    await scene.store.release(lease)
    await scene.store.acquire("sources/default", "another", 60.0)
    signals = await scene.watch()
    with pytest.raises(LeaseLost):
        await signals.check(lease)
    assert await scene.signals() == []


async def test_a_thousand_connections_late_at_once_are_each_raised_once() -> None:
    async with MemoryStore() as store:
        scene = Scene(store)
        late = ConnectionSettings(fresh_within=1.0)
        scene.settings = {f"{number:08x}-0000-4000-8000-000000000000": late for number in range(1000)}
        signals = await scene.watch()
        for _ in range(2):
            await signals.check(now=utcnow() + HOUR)
        assert await scene.store.head() == 1000
        assert len(signals.raised) == 1000 < MOST_RAISED
        assert signals.counts[SignalKind.OVERDUE] == 1000


async def test_the_messages_are_for_people(scene: Scene) -> None:
    await scene.history()
    await scene.put(50, ago=HOUR)
    signals = await scene.watch()
    await signals.check()
    (raised,) = signals.raised.values()
    assert raised.signal is not None
    assert raised.signal.message == "job 50 has run for 1 h, usually 1 min"
    assert isinstance(raised.signal.since, datetime)


class TestSettings:
    def load(self, tmp_path: Path, table: str) -> Mapping[str, ConnectionSettings]:
        file = tmp_path / "airbyte-events.toml"
        file.write_text(f'[instances.default]\nairbyte_url = "http://127.0.0.1:8000"\n{table}')
        return load(file).instances["default"].connections

    def test_by_id_and_by_name(self, tmp_path: Path) -> None:
        found = self.load(
            tmp_path,
            f'[instances.default.connections."{CONNECTION.upper()}"]\nfresh_within = "26h"\nslow_factor = 0\n'
            '[instances.default.connections."Orders, daily"]\nstalled_after = 2700\n',
        )
        assert found == {
            CONNECTION: ConnectionSettings(fresh_within=26 * 3600, slow_factor=0),
            "orders, daily": ConnectionSettings(stalled_after=2700),
        }

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("fresh_within = -1", "fresh_within of 'Orders' is not a time up to a year, or 0; write fresh_within ="),
            ("fresh_within = nan", "fresh_within of 'Orders' is not a time"),
            ('stalled_after = "soon"', "stalled_after of 'Orders' is not a time"),
            ("stalled_after = true", "stalled_after of 'Orders' is not a time"),
            ("slow_factor = 0.5", "slow_factor of 'Orders' is not a factor of 1 or more, or 0; write slow_factor = 3"),
            ("fresh = 1", "'Orders' has no setting 'fresh'; known are fresh_within, stalled_after, slow_factor"),
        ],
    )
    def test_wrong_ones_name_the_setting(self, tmp_path: Path, line: str, message: str) -> None:
        with pytest.raises(SettingsError, match=r"instances\.default\.connections in ") as info:
            self.load(tmp_path, f'[instances.default.connections."Orders"]\n{line}\n')
        assert message in str(info.value)

    def test_the_environment_has_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRBYTE_EVENTS_CONNECTIONS", "Orders")
        with pytest.raises(SettingsError, match="AIRBYTE_EVENTS_CONNECTIONS: no such setting"):
            load()


class TestNotifications:
    def event(self, *, raised: bool = True, job_id: int | None = 50) -> JobEvent:
        kind = SignalKind.OVERDUE if job_id is None else SignalKind.STALLED
        signal = Signal(kind=kind, raised=raised, job_id=job_id, message="moved nothing <b> for 45 min")
        return JobEvent.of_signal(
            signal,
            instance="default",
            connection_id=CONNECTION,
            observed_at=utcnow(),
            names={"connection": "Orders"},
            cursor=Cursor("ab", 1),
        )

    def settings(self, **values: Any) -> NotifySettings:
        return NotifySettings(name="on-call", type="slack", url="https://hooks.slack.com/services/T/B/X", **values)

    def test_only_the_signals_that_a_target_wants(self) -> None:
        wanted = CompletionFilter(self.settings(signals=("stalled",), statuses=("failed",)))
        assert wanted.accepts(self.event())
        assert wanted.accepts(self.event(raised=False))
        assert not wanted.accepts(self.event(job_id=None))
        assert not CompletionFilter(self.settings()).accepts(self.event()), "none by default"
        assert not CompletionFilter(self.settings(signals=("stalled",), instances=("other",))).accepts(self.event())

    def test_the_message_of_one_and_of_many(self) -> None:
        one = Completion(event=self.event(), source="http://127.0.0.1:8000/api/public/v1")
        message = message_of([one], 1, various=False)
        assert (message.title, message.facts[0]) == ("Job stalled: Orders", ("Message", "moved nothing <b> for 45 min"))
        assert message.jobs[0].text == "Job 50"
        recovered = replace(one, event=self.event(raised=False, job_id=None))
        assert message_of([recovered], 1, various=False).title == "Connection no longer overdue: Orders"
        assert message_of([one, one], 1000, various=False).title == "1,000 jobs stalled"
        assert cause_of(one.event) != cause_of(recovered.event)

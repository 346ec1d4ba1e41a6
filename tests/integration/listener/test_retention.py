"""A listener keeps its store to the bounds that are set, and tells whoever was cut off."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.events import Cursor, JobEvent
from airbyte_events.simulator import Simulator, serve_simulator
from airbyte_events.store.base import EventStore
from airbyte_events.store.records import Outcome
from airbyte_events.store.retention import Retention
from airbyte_events.store.sqlite.store import SQLiteStore
from support.stored import ended, receipt_of
from support.waiting import a_moment, in_background

from .test_listener import TOKENS, listening

pytestmark = pytest.mark.anyio


def event(job_id: int, age: timedelta) -> JobEvent:
    return ended(job_id, utcnow() - age, observed_at=utcnow() - age)


async def fill(store: EventStore) -> None:
    await store.append([event(job_id, timedelta(days=11 - job_id)) for job_id in range(1, 11)])
    for age in (9, 1):
        await receipt_of(
            store,
            str(age).encode(),
            kind="test",
            job_id=None,
            outcome=Outcome.IGNORED,
            received_at=utcnow() - timedelta(days=age),
        )


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("settings", "kept", "notifications"),
    [({"RETAIN_DAYS": "3.5"}, [8, 9, 10], 1), ({"RETAIN_EVENTS": "4"}, [7, 8, 9, 10], 2), ({}, list(range(1, 11)), 2)],
)
async def test_i5_a_reader_who_was_cut_off_is_reset(
    tmp_path: Path, settings: dict[str, str], kept: list[int], notifications: int
) -> None:
    (tmp_path / "data").mkdir()
    async with SQLiteStore(tmp_path / "data" / "events.db") as store:
        await fill(store)
        epoch = store.epoch
    async with (
        serve_simulator(Simulator()) as simulator,
        listening(tmp_path, simulator.url, **TOKENS, **settings) as listener,
    ):
        oldest = f"{epoch}-{kept[0] - 1}"
        with anyio.fail_after(30):
            while settings:
                answer = await listener.http.get("/v1/events", params={"after": f"{epoch}-{kept[0] - 2}"})
                if answer.status_code == 410:
                    assert answer.json()["cursor"] == f"{epoch}-10"
                    break
        page = (await listener.http.get("/v1/events", params={"after": oldest})).json()
        assert [each["data"]["job_id"] for each in page["events"]] == kept
        # What a job has come to is known for ever.
        assert len((await listener.http.get("/v1/jobs")).json()["jobs"]) == 10
        with anyio.fail_after(30):
            while len((await listener.http.get("/v1/notifications")).json()["notifications"]) != notifications:
                await a_moment()
        if settings:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": f"{epoch}-0"}
            async with listener.http.stream("GET", "/v1/events", headers=headers) as response:
                lines = response.aiter_lines()
                with anyio.fail_after(30):
                    while await anext(lines) != "event: reset":
                        pass
                    told = [await anext(lines), await anext(lines)]
            assert f"id: {Cursor(epoch, 10)}" in told
            (data,) = [line for line in told if line.startswith("data: ")]
            assert "keeps" in json.loads(data.removeprefix("data: "))["reason"]


async def test_goes_on_when_the_store_fails_for_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "events.db"
    async with SQLiteStore(path) as store:
        await fill(store)
        lease = await store.acquire("retention", "a", 60)
        assert lease is not None
        retention = Retention(store, age=timedelta(days=3.5), events=100, every=0.01)
        aside = await anyio.Path(path).rename(tmp_path / "aside")
        with anyio.fail_after(30):
            async with in_background(retention.run, lease):
                while "trying again later" not in caplog.text:
                    await a_moment()
                await aside.rename(path)
                while "removed 7 old events and 1 old notifications" not in caplog.text:
                    await a_moment()
        assert (await store.stats()).events == 3

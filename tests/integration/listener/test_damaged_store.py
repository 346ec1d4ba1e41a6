"""A listener on a store with damaged rows of every table serves all the others, and says what it left out."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from pathlib import Path

import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.simulator import Simulator, serve_simulator
from airbyte_events.store.sqlite.store import SQLiteStore
from support.loops import anyio_backend as anyio_backend
from support.stored import event, receipt_of
from support.waiting import until

from .test_listener import TOKENS, listening

pytestmark = pytest.mark.anyio

FAULTS = (
    "UPDATE events SET data = 'nonsense' WHERE sequence = 1",
    "UPDATE events SET data = '[]' WHERE sequence = 2",
    "UPDATE events SET data = x'ff' WHERE sequence = 3",
    'UPDATE events SET data = replace(data, \'"origin": "poll"\', \'"origin": "oracle"\') WHERE sequence = 4',
    "UPDATE jobs SET data = '{' WHERE job_id = 5",
    "UPDATE jobs SET data = CAST(x'ff' AS TEXT), status = 'nonsense' WHERE job_id = 6",
    "UPDATE notifications SET received_at = 'nonsense' WHERE id = 1",
    "UPDATE notifications SET body = x'00' WHERE id = 2",
    "UPDATE notifications SET job_id = 'nonsense' WHERE id = 3",
    "UPDATE deliveries SET due_at = 'nonsense', attempts = 'nonsense'",
    "DELETE FROM meta WHERE key = 'epoch'",
    "INSERT OR REPLACE INTO meta VALUES ('looked_at/default', 'nonsense'), ('looking_since/default', x'ff')",
    "INSERT INTO watches VALUES ('default', 7, 'nonsense', '9999')",
)


async def test_serves_the_others_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with SQLiteStore(path) as store:
        await store.append([event(number, observed_at=utcnow()) for number in range(1, 9)])
        for number in range(4):
            await receipt_of(
                store,
                b'{"data": {"jobId": %d, "success": true}}' % number,
                job_id=number,
                received_at=utcnow(),
                targets=["slack"],
            )
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for fault in FAULTS:
            connection.execute(fault)
    async with (
        serve_simulator(Simulator()) as simulator,
        listening(tmp_path, simulator.url, STORE=f"sqlite:///{path}", **TOKENS) as listener,
    ):

        async def is_ready() -> bool:
            return (await listener.http.get("/readyz")).status_code == 200

        await until(is_ready)
        epoch = (await listener.http.get("/v1/events")).json()["cursor"].partition("-")[0]
        page = (await listener.http.get("/v1/events", params={"after": f"{epoch}-0"})).json()
        told = [each["data"] for each in page["events"]]
        assert [each["job_id"] for each in told] == [4, 5, 6, 7, 8]
        assert told[0]["origin"] == "unknown"
        known = (await listener.http.get("/v1/jobs")).json()["jobs"]
        assert {each["job_id"] for each in known} >= {1, 2, 3, 4, 7, 8}
        for number in (5, 6):
            # The log knows what became of it.
            assert (await listener.http.get(f"/v1/jobs/default/{number}")).json()["job"]["status"] == "running"
        shown = (await listener.http.get("/v1/notifications")).json()["notifications"]
        assert {each["id"] for each in shown} == {2, 4}
        for page_of in ("/v1/deliveries", "/v1/status", "/metrics"):
            assert (await listener.http.get(page_of)).status_code == 200
        metrics = (await listener.http.get("/metrics")).text
        assert 'airbyte_events_store_unreadable_rows{table="events"} 3.0' in metrics
        assert 'airbyte_events_store_unreadable_rows{table="jobs"} 2.0' in metrics
        assert (await listener.http.post(listener.webhooks, content=b'{"data": {"jobId": 9}}')).status_code == 202
        listener.signal(signal.SIGTERM)
        assert await listener.ended() == 0
        said = listener.log.read_text()
    assert said.count("table=events key=1;") == 1
    assert said.count("epoch was missing") == 1

"""Webhook bodies of any kind, to a whole listener over a socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import anyio.lowlevel
import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airbyte_events.listener.http.receiver import MAX_BODY
from airbyte_events.simulator import Script, Simulator, serve_simulator
from airbyte_events.store.base import EventStore
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.postgres.store import PostgresStore
from airbyte_events.store.sqlite.store import SQLiteStore
from support.listener import WEBHOOK_TOKEN, instance_of, serve_listener, settings_of
from support.loops import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio


NAMES = ["text", "blocks", "data", "jobId", "success", "finishedAt", "connection", "id", "name", "errorMessage"]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from([1, 2, 2**63, "\0", "\ud800", "1", "Sync completed", "Your connection a failed", "\nJob ID: 1"]),
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(NAMES) | st.text(max_size=5),
    st.recursive(
        LEAVES,
        lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), each),
        max_leaves=8,
    ),
    max_size=5,
)
HINTS = st.fixed_dictionaries({"data": st.fixed_dictionaries({"jobId": st.integers(1, 9), "success": st.booleans()})})
BODIES = st.one_of(
    st.builds(
        lambda value, plain: json.dumps(value, ensure_ascii=plain).encode(errors="surrogatepass"),
        DOCUMENTS,
        st.booleans(),
    ),
    HINTS.map(lambda value: json.dumps(value).encode()),
    st.binary(),
)

few = settings(max_examples=max(settings().max_examples * 3 // 5, 10))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> EventStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SQLiteStore(tmp_path / "events.db")
    return PostgresStore(f"{request.getfixturevalue('postgres_url')}?schema=fuzz_{uuid4().hex}")


@pytest.fixture
async def http(store: EventStore) -> AsyncIterator[httpx.AsyncClient]:
    """To a listener whose Airbyte has one job that runs, with the id 1, and no other."""
    async with serve_simulator(Simulator()) as sim:
        assert sim.world.start_job(sim.world.add_connection(Script.hanging()), "sync").id == 1
        async with (
            serve_listener(settings_of(instance_of(sim.url), api_tokens=()), store=store) as served,
            httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=30) as http,
        ):
            yield http


@few
@given(body=BODIES)
@example(body=b"[" * 60_000)
@example(body=b'{"a":' * 10_000)
@example(body=b'{"data": {"jobId": ' + b"9" * 60_000 + b', "success": true}}')
@example(body=b'{"data": {"jobId": 1, "success": true}, "data": {"jobId": "1", "success": false}}')
@example(body=rb'{"data": {"jobId": 1, "success": true, "errorMessage": "\u0000\ud800"}}')
@example(body=b"\0")
@example(body=b"{" + b" " * (MAX_BODY - 2) + b"}")
@example(body=b"{" + b" " * (MAX_BODY - 1) + b"}")
async def test_any_body_is_stored_as_it_is_and_ends_no_job(
    http: httpx.AsyncClient, store: EventStore, body: bytes
) -> None:
    first, again = [await http.post(f"/webhooks/default/{WEBHOOK_TOKEN}", content=body) for _ in range(2)]
    assert first.status_code in (200, 202, 400, 413), first.text
    if first.status_code in (200, 202):
        # I1: what was acknowledged is there, as it came, and once.
        kept = [each.id for each in await store.notifications(limit=10_000) if each.body == body]
        assert kept == [first.json()["event"]]
        assert (again.status_code, again.json()) == (200, first.json())
    else:
        assert (first.status_code == 413) is (len(body) > MAX_BODY)
        assert (again.status_code, again.json()) == (first.status_code, first.json())
    # I3: no job has ended, so none ends by what a notification says.
    with anyio.fail_after(30):
        while await store.pending("default"):
            await anyio.lowlevel.checkpoint()
    events: list[Any] = list((await store.read(0)).events)
    assert not [event for event in events if event.terminal]

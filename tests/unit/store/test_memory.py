"""What the memory store does beyond what every store promises."""

from __future__ import annotations

import pytest

from airbyte_events.events import JobRef
from airbyte_events.store.memory.store import MemoryStore
from support.stored import SUCCEEDED, event, receipt_of, received

pytestmark = pytest.mark.anyio


async def test_i6_the_memory_store_forgets_what_ended_but_no_active_job() -> None:
    async with MemoryStore(capacity=10) as store:
        await store.append([event(1)])
        await store.append([event(job_id, SUCCEEDED) for job_id in range(2, 52)])
        for number in range(50):
            await received(store, str(number).encode())
        assert len(await store.jobs()) == 11
        assert await store.states([JobRef("default", 1), JobRef("default", 2)]) != {}
        assert len(await store.notifications()) == 10
        assert not (await receipt_of(store, b"0")).duplicate

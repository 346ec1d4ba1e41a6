"""The assets' trigger as Airflow runs it before 3.3: each has a stream of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airbyte_events_provider.triggers.airbyte import AirbyteSyncEventTrigger
from airbyte_events_provider.triggers.producer import SHARES_STREAMS
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub
from support.airflow_stage import AirflowStage
from support.listener import Running

pytestmark = pytest.mark.anyio


def test_there_is_a_key_only_where_streams_are_shared() -> None:
    assert (AirbyteSyncEventTrigger().shared_stream_key() is not None) is SHARES_STREAMS


async def test_each_end_fires_once(stage: AirflowStage, source: str) -> None:
    trigger = AirbyteSyncEventTrigger(connection_ids=[stage.connection_id])
    fired: list[dict[str, Any]] = []

    async def run() -> None:
        async for event in trigger.run():
            fired.append(event.payload)  # noqa: PERF401 -- each as it comes

    running = asyncio.get_running_loop().create_task(run())
    async with shared_hub(HubKey("airbyte_default")) as shared:
        await stage.until(lambda: shared.hub.followers == 1 and shared.hub.following is (source == "pushed"))
        for count in (1, 2):
            stage.end(stage.start())
            await stage.until(lambda count=count: len(fired) == count)  # type: ignore[misc]
    assert [payload["job_id"] for payload in fired] == [1, 2]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_two_share_a_hub(stage: AirflowStage, listener: Running) -> None:
    triggers = [AirbyteSyncEventTrigger(connection_ids=each) for each in ([stage.connection_id], [])]
    streams: list[Any] = [trigger.run() for trigger in triggers]
    firing: list[asyncio.Task[Any]] = [asyncio.get_running_loop().create_task(anext(stream)) for stream in streams]
    async with shared_hub(HubKey("airbyte_default")) as shared:
        await stage.until(lambda: shared.hub.followers == 2 and shared.hub.following)
    job = stage.end(stage.start())
    assert [(await each).payload["job_id"] for each in firing] == [job.id, job.id]
    for stream in streams:
        await stream.aclose()
    # The listener's and the hub's.
    assert stage.requests("POST /applications/token") == 2

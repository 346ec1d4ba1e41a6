"""The progress of a job, by the listener or Airbyte."""

from __future__ import annotations

import httpx
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.events import JobStatus, Progress
from support.airbyte import Airbyte
from support.feed import ScriptedFeed
from support.hubs import fed
from support.waiting import until

pytestmark = pytest.mark.anyio


class TestProgress:
    @pytest.mark.parametrize("fault", [None, 500])
    async def test_only_without_the_listener_is_airbyte_asked(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, fault: int | None
    ) -> None:
        airbyte.put(1, rowsSynced=7)
        feed.progress = [Progress(job_id=1, status=JobStatus.RUNNING, observed_at=utcnow(), records=5)]
        feed.faults = {} if fault is None else {"/v1/progress": fault}
        for _ in range(3):
            # Each as a worker of its own.
            async with fed(http, airbyte, feed) as hub:
                await until(lambda: hub.following)
                found = [await hub.progress(1) for _ in range(10)]
            assert {each.records for each in found if each is not None} == {5 if fault is None else 7}
        assert airbyte.reads_of(1) == (0 if fault is None else 3)

    @pytest.mark.parametrize("told", [[], [Progress(job_id=2, status=JobStatus.RUNNING, observed_at=utcnow())]])
    async def test_what_the_listener_does_not_know_airbyte_is_not_asked_for(
        self, http: httpx.AsyncClient, airbyte: Airbyte, feed: ScriptedFeed, told: list[Progress]
    ) -> None:
        airbyte.put(1, rowsSynced=7)
        feed.progress = told
        async with fed(http, airbyte, feed) as hub:
            await until(lambda: hub.following)
            assert await hub.progress(1, streams=True) is None
        assert airbyte.reads_of(1) == 0

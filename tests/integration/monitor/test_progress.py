"""Progress: a few requests a minute for all who look, none when nobody does."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events.airbyte.internal_api import parse_streams
from airbyte_events.errors import AirbyteError
from airbyte_events.events import StreamProgress
from airbyte_events.events.progress import MOST_STREAMS
from airbyte_events.monitor.progress import REQUESTS_PER_MINUTE, ProgressReader
from support.airbyte import Airbyte, client_of
from support.events import CONNECTION
from support.monitor import Watched

pytestmark = pytest.mark.anyio


@pytest.fixture
async def reader(airbyte: Airbyte, http: httpx.AsyncClient) -> ProgressReader:
    return ProgressReader(client_of(http, airbyte.url), fresh=0)


def listed(airbyte: Airbyte) -> int:
    return len([each for each in airbyte.requests if "status" in each.query])


def asked(airbyte: Airbyte) -> int:
    return listed(airbyte) + airbyte.reads + airbyte.count("POST /api/v1/.*")


def streams_of(job_id: int = 5, *records: int, **more: Any) -> bytes:
    streams = [
        {"streamName": f"s{number}", "streamNamespace": "public", "recordsEmitted": each, "bytesEmitted": 9 * each}
        for number, each in enumerate(records)
    ]
    return json.dumps({"connectionId": CONNECTION, "jobId": job_id, "streams": streams, **more}).encode()


class TestPublicApi:
    async def test_the_counts_of_a_running_job(self, airbyte: Airbyte, reader: ProgressReader) -> None:
        airbyte.put(5, rowsSynced=600, bytesSynced=54_000)
        progress = (await reader.read([5]))[5]
        assert (progress.records, progress.bytes, progress.streams) == (600, 54_000, None)
        assert (progress.status, progress.connection_id, progress.unchanged_seconds) == ("running", CONNECTION, 0)

    @pytest.mark.parametrize(("count", "requests"), [(100, 1), (250, 3)])
    async def test_a_hundred_jobs_cost_one_request(
        self, airbyte: Airbyte, reader: ProgressReader, count: int, requests: int
    ) -> None:
        ids = range(1, count + 1)
        for job_id in ids:
            airbyte.put(job_id, rowsSynced=job_id)
        found = await reader.read(ids)
        assert [found[job_id].records for job_id in ids] == [*ids]
        assert asked(airbyte) == requests

    async def test_callers_share_requests(self, airbyte: Airbyte, http: httpx.AsyncClient) -> None:
        reader = ProgressReader(client_of(http, airbyte.url))
        airbyte.put(5, rowsSynced=1)
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(reader.read, [5])
        assert asked(airbyte) == 1

    async def test_the_budget_bounds_requests_and_serves_each_job_in_turn(
        self, airbyte: Airbyte, reader: ProgressReader
    ) -> None:
        airbyte.faults["running"] = 500
        for job_id in range(1, 11):
            airbyte.put(job_id, rowsSynced=job_id)
        found = [await reader.read(range(1, 11)) for _ in range(50)][-1]
        assert asked(airbyte) <= REQUESTS_PER_MINUTE + 1
        assert len(found) >= REQUESTS_PER_MINUTE - 1
        assert {airbyte.reads_of(job_id) for job_id in range(1, 11)} <= {0, 1}

    async def test_callers_of_one_job_each_have_their_turns(self, airbyte: Airbyte, reader: ProgressReader) -> None:
        for job_id in range(1, 11):
            airbyte.put(job_id, rowsSynced=job_id)
        for _ in range(20):
            for job_id in range(1, 11):
                await reader.read([job_id])
        assert asked(airbyte) <= REQUESTS_PER_MINUTE + 1
        assert [list(await reader.read([job_id])) for job_id in range(1, 11)] == [[job_id] for job_id in range(1, 11)]

    async def test_streams_have_their_turns_beside_lists(self, airbyte: Airbyte, reader: ProgressReader) -> None:
        for job_id in range(1, 11):
            connection_id = f"5f0c3d52-8f27-4a5e-9f7e-{job_id:012}"
            airbyte.put(job_id, connectionId=connection_id)
            airbyte.streams[connection_id] = streams_of(job_id, 10)
        for _ in range(20):
            for job_id in range(1, 11):
                await reader.read([job_id], streams=True)
        found = [(await reader.read([job_id]))[job_id].streams for job_id in range(1, 11)]
        assert sum(streams is not None for streams in found) >= REQUESTS_PER_MINUTE // 3
        assert airbyte.count("POST /api/v1/.*") == sum(streams is not None for streams in found), "none has two turns"

    async def test_patient_callers_share_one_request_in_20_s_and_leave_the_others(
        self, airbyte: Airbyte, reader: ProgressReader
    ) -> None:
        for job_id in range(1, 11):
            airbyte.put(job_id, rowsSynced=job_id)
        for _ in range(5):
            for job_id in range(1, 11):
                await reader.read([job_id], max_age=20)
        assert asked(airbyte) == 1
        # The others have what is left of the burst.
        for _ in range(20):
            await reader.read([1])
        assert asked(airbyte) == REQUESTS_PER_MINUTE
        airbyte.put(11, rowsSynced=11)
        assert await reader.read([11], max_age=20) == {}, "one in 20 s"

    async def test_what_progress_reports_as_active_needs_no_spot_check(
        self, watched: Watched, http: httpx.AsyncClient
    ) -> None:
        watches = watched.monitor.watches
        reader = ProgressReader(client_of(http, watched.airbyte.url), fresh=0, on_active=watches.confirm)
        for job_id in (1, 2, 3):
            watched.airbyte.put(job_id)
        await watched.monitor.watch([1, 2, 3])
        before = anyio.current_time()
        watched.airbyte.put(3, "succeeded")
        await reader.read([1, 2])
        assert watches.stale(anyio.current_time() - before) == [3]

    async def test_nothing_is_requested_when_nobody_looks(self, watched: Watched) -> None:
        watched.airbyte.put(5)
        await watched.monitor.watch([5])
        before = watched.airbyte.reads
        for _ in range(3):
            await watched.monitor.poll()
        assert (listed(watched.airbyte), watched.airbyte.reads) == (0, before)

    async def test_nothing_is_requested_while_airbyte_backs_off(
        self, airbyte: Airbyte, http: httpx.AsyncClient
    ) -> None:
        client = client_of(http, airbyte.url, base_delay=60.0, random=lambda: 1.0)
        airbyte.faults[4] = 503
        with pytest.raises(AirbyteError):
            await client.get_job(4)
        airbyte.put(5)
        before = asked(airbyte)
        assert await ProgressReader(client, fresh=0).read([5]) == {}
        assert asked(airbyte) == before

    @pytest.mark.parametrize("fault", [401, 429, 500])
    async def test_after_a_failure_nothing_is_requested_for_a_while(
        self, airbyte: Airbyte, http: httpx.AsyncClient, fault: int
    ) -> None:
        client = client_of(http, airbyte.url)
        reader = ProgressReader(client, fresh=0)
        airbyte.put(5)
        airbyte.faults[5] = fault
        assert [await reader.read([5]) for _ in range(4)] == [{}] * 4
        assert asked(airbyte) == 1
        assert client.backing_off == 0, "other requests need not wait"

    async def test_completed_and_unknown_jobs_have_none(self, airbyte: Airbyte, reader: ProgressReader) -> None:
        airbyte.put(5, rowsSynced=1)
        assert 5 in await reader.read([5])
        airbyte.put(5, "succeeded")
        assert await reader.read([5]) == {}
        assert await reader.read([6]) == {}

    async def test_how_long_nothing_has_moved(self, airbyte: Airbyte, reader: ProgressReader) -> None:
        airbyte.put(5, rowsSynced=1)
        await reader.read([5])
        assert (await reader.read([5]))[5].unchanged_seconds > 0
        airbyte.put(5, rowsSynced=2)
        assert (await reader.read([5]))[5].unchanged_seconds == 0
        airbyte.put(5, "queued")
        await reader.read([5])
        assert (await reader.read([5]))[5].unchanged_seconds == 0, "a job that waits does not stall"

    async def test_i3_another_job_with_the_number_starts_anew(self, airbyte: Airbyte, reader: ProgressReader) -> None:
        airbyte.put(5, rowsSynced=1)
        await reader.read([5])
        del airbyte.jobs[5]
        airbyte.put(5, rowsSynced=1, ago=60)
        assert (await reader.read([5]))[5].unchanged_seconds == 0


class TestStreams:
    async def test_each_stream(self, airbyte: Airbyte, reader: ProgressReader) -> None:
        airbyte.put(5)
        airbyte.streams[CONNECTION] = streams_of(5, 10, 20)
        progress = (await reader.read([5], streams=True))[5]
        assert progress.streams == (
            StreamProgress(name="s0", namespace="public", records=10, bytes=90),
            StreamProgress(name="s1", namespace="public", records=20, bytes=180),
        )
        assert (progress.records, progress.bytes) == (30, 270), "the public API had none"

    async def test_i3_the_public_apis_counts_are_shown(self, airbyte: Airbyte, reader: ProgressReader) -> None:
        airbyte.put(5, rowsSynced=7)
        airbyte.streams[CONNECTION] = streams_of(5, 10)
        assert (await reader.read([5], streams=True))[5].records == 7

    async def test_what_is_read_from_the_source_is_progress_too(self, airbyte: Airbyte, reader: ProgressReader) -> None:
        airbyte.put(5, rowsSynced=0)
        airbyte.streams[CONNECTION] = streams_of(5, 10)
        await reader.read([5], streams=True)
        assert (await reader.read([5]))[5].unchanged_seconds > 0
        await reader.read([5])
        airbyte.streams[CONNECTION] = streams_of(5, 11)
        moved_at = anyio.current_time()
        unchanged = (await reader.read([5], streams=True))[5].unchanged_seconds
        assert unchanged <= anyio.current_time() - moved_at

    async def test_i3_a_job_whose_streams_were_not_compared_has_not_stalled(
        self, airbyte: Airbyte, reader: ProgressReader
    ) -> None:
        connections = {job_id: f"{job_id:08}-0000-4000-8000-000000000000" for job_id in range(1, 9)}
        for job_id, connection_id in connections.items():
            airbyte.put(job_id, connection_id=connection_id, rowsSynced=0)
            airbyte.streams[connection_id] = streams_of(job_id, 10)
        await reader.read(connections)
        # One request lists the jobs; the budget leaves some without their streams.
        found = await reader.read(connections, streams=True)
        assert all(each.unchanged_seconds > 0 for each in found.values())
        assert len({each.streams for each in found.values()}) > 1
        assert not any(each.has_stalled(0.0001 * each.unchanged_seconds) for each in found.values())

    async def test_it_has_once_they_were_the_same_again(self, airbyte: Airbyte, reader: ProgressReader) -> None:
        airbyte.put(5, rowsSynced=0)
        airbyte.streams[CONNECTION] = streams_of(5, 10)
        found = [(await reader.read([5], streams=True))[5] for _ in range(2)]
        assert found[0].streams_unchanged_seconds == 0
        unchanged = found[1].streams_unchanged_seconds
        assert unchanged
        assert found[1].has_stalled(unchanged)

    async def test_without_streams_the_counts_decide(self, airbyte: Airbyte, reader: ProgressReader) -> None:
        airbyte.put(5, rowsSynced=0)
        found = [(await reader.read([5], streams=True))[5] for _ in range(2)]
        assert found[1].streams_unchanged_seconds is None
        assert found[1].has_stalled(found[1].unchanged_seconds)

    @pytest.mark.parametrize("answer", [None, b"", b"[]", b"[" * 100_000, b'{"jobId": 5}', streams_of(6, 1)])
    async def test_without_it_everything_works_as_before(
        self, airbyte: Airbyte, reader: ProgressReader, answer: bytes | None
    ) -> None:
        airbyte.put(5, rowsSynced=7)
        if answer is not None:
            airbyte.streams[CONNECTION] = answer
        progress = (await reader.read([5], streams=True))[5]
        assert (progress.records, progress.streams) == (7, None)

    @pytest.mark.parametrize("odd", [None, 7, "text", [], {}, [[]], [{}], [{"streamName": 7}]])
    def test_other_shapes_are_no_streams(self, odd: Any) -> None:
        found = parse_streams(5, {"jobId": 5, "streams": odd})
        assert found == () if isinstance(odd, list) else found is None

    def test_streams_and_names_are_bounded(self) -> None:
        streams = [{"streamName": "x" * 10_000, "recordsEmitted": -1}] * (MOST_STREAMS + 1)
        found = parse_streams(5, {"jobId": 5, "streams": streams}) or ()
        assert len(found) == MOST_STREAMS
        assert len(found[0].name) <= 200
        assert found[0].records is None

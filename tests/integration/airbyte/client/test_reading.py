"""What the API client reads."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from airbyte_events.airbyte import Job, JobPage
from airbyte_events.errors import (
    AirbyteError,
    AirbyteProtocolError,
    ServerError,
)
from airbyte_events.events import JobStatus
from support.api import BASE, ENDED, JOB_PATH, JOBS, RUNNING, SECRET, TOKEN, Make, authorizations
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio


class TestReading:
    async def test_a_job(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.reply(200, ENDED))

        job = await client().get_job(5)

        assert job == Job(
            job_id=5,
            status=JobStatus.SUCCEEDED,
            job_type="sync",
            connection_id="c",
            started_at=datetime(2024, 1, 1, tzinfo=UTC),
            updated_at=datetime(2024, 1, 1, 1, tzinfo=UTC),
            duration_seconds=3600.0,
        )
        assert authorizations(server) == [None]
        assert server.requests[0].headers["accept"] == "application/json"

    async def test_an_unknown_status_is_active_and_warned_of_once(
        self, server: ScriptedServer, client: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.on(JOB_PATH, server.reply(200, RUNNING | {"status": "paused"}))
        one = client()

        for _ in range(3):
            assert (await one.get_job(5)).status is JobStatus.UNKNOWN

        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.getMessage() for record in warnings] == [
            "unknown job status, counted as active: status='paused'"
        ]

    async def test_a_page_of_jobs_and_airbytes_clock(self, server: ScriptedServer, client: Make) -> None:
        page = {"data": [ENDED, RUNNING | {"jobId": 6}], "next": "http://internal/", "previous": ""}
        server.on(JOBS, server.reply(200, page, {"Date": "Mon, 01 Jan 2024 02:00:00 GMT"}))

        found = await client(workspace_ids=["w1", "w2"]).list_jobs(
            updated_since=datetime(2024, 1, 1, tzinfo=UTC),
            created_since=datetime(2023, 1, 1, tzinfo=UTC),
            connection_id="c",
            job_type="sync",
            status=JobStatus.RUNNING,
            limit=50,
            offset=10,
            order_by="updatedAt|ASC",
        )

        assert [job.job_id for job in found.jobs] == [5, 6]
        assert found.served_at == datetime(2024, 1, 1, 2, tzinfo=UTC)
        assert server.requests[0].query == {
            "limit": ["50"],
            "offset": ["10"],
            "workspaceIds": ["w1", "w2"],
            "connectionId": ["c"],
            "jobType": ["sync"],
            "status": ["running"],
            "createdAtStart": ["2023-01-01T00:00:00.000000Z"],
            "updatedAtStart": ["2024-01-01T00:00:00.000000Z"],
            "orderBy": ["updatedAt|ASC"],
        }

    async def test_clears_are_listed_as_the_resets_that_airbyte_stores(
        self, server: ScriptedServer, client: Make
    ) -> None:
        server.on(JOBS, server.reply(200, {"data": []}))
        await client().list_jobs(job_type="clear")
        assert server.requests[0].query["jobType"] == ["reset"]

    async def test_a_page_asks_for_no_more_than_it_must(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOBS, server.reply(200, {"data": []}))

        assert await client().list_jobs() == JobPage(jobs=())
        assert server.requests[0].query == {"limit": ["100"], "offset": ["0"]}

    @pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Jan 2024 02:00:00 GMT"])
    async def test_a_wrong_clock_is_none(self, server: ScriptedServer, client: Make, date: str) -> None:
        server.on(JOBS, server.reply(200, {"data": []}, {"Date": date}))

        assert (await client().list_jobs()).served_at is None

    @pytest.mark.parametrize(("limit", "offset"), [(0, 0), (101, 0), (1, -1)])
    async def test_a_page_of_no_size(self, client: Make, limit: int, offset: int) -> None:
        with pytest.raises(ValueError, match="limit"):
            await client().list_jobs(limit=limit, offset=offset)

    async def test_pages_are_counted_by_our_own_offset(self, server: ScriptedServer, client: Make) -> None:
        full = [{"data": [RUNNING | {"jobId": 1 + n + 100 * p} for n in range(100)], "next": "x"} for p in range(2)]
        short = {"data": [RUNNING | {"jobId": 201}], "next": "http://internal/more"}
        server.on(JOBS, *(server.reply(200, page) for page in (*full, short)))

        pages = [page async for page in client().find_jobs(connection_id="c")]

        assert [job.job_id for page in pages for job in page.jobs] == list(range(1, 202))
        assert [r.query["offset"] for r in server.requests] == [["0"], ["100"], ["200"]]
        assert all(r.query["connectionId"] == ["c"] and "orderBy" not in r.query for r in server.requests)

    async def test_pages_end_with_an_empty_one(self, server: ScriptedServer, client: Make) -> None:
        full = {"data": [RUNNING | {"jobId": 1 + n} for n in range(100)]}
        server.on(JOBS, server.reply(200, full), server.reply(200, {"data": []}))

        assert [len(page.jobs) async for page in client().find_jobs()] == [100, 0]

    async def test_pages_end_at_the_maximum_and_say_so(self, server: ScriptedServer, client: Make) -> None:
        pages = [{"data": [RUNNING | {"jobId": 1 + n + 100 * p} for n in range(100)]} for p in range(3)]
        server.on(JOBS, *(server.reply(200, page) for page in pages))
        found = client().find_jobs(max_pages=2)

        assert [(await anext(found)).jobs[0].job_id for _ in range(2)] == [1, 101]
        with pytest.raises(AirbyteError, match="more than 200 jobs match"):
            await anext(found)
        assert len(server.requests) == 2

    async def test_an_airbyte_that_ignores_the_offset(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOBS, server.reply(200, {"data": [RUNNING | {"jobId": 1 + n} for n in range(100)]}))

        with pytest.raises(AirbyteProtocolError, match="ignores the offset"):
            [page async for page in client().find_jobs()]
        assert len(server.requests) == 2

    async def test_a_reader_of_pages_may_stop_early(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOBS, server.reply(200, {"data": [RUNNING | {"jobId": 1 + n} for n in range(100)]}))

        async for page in client().find_jobs():
            assert len(page.jobs) == 100
            break
        assert len(server.requests) == 1

    async def test_a_connection_in_airbytes_own_fields(self, server: ScriptedServer, client: Make) -> None:
        server.on(f"GET {BASE}/connections/c-1", server.reply(200, {"connectionId": "c-1", "name": "x"}))

        assert await client().get_connection("c-1") == {"connectionId": "c-1", "name": "x"}

    @pytest.mark.parametrize("connection_id", ["", "a/b", "..", "a?b", "a b", "a#b", "é"])
    async def test_a_connection_id_that_would_be_another_path(
        self, server: ScriptedServer, client: Make, connection_id: str
    ) -> None:
        with pytest.raises(ValueError, match="UUID"):
            await client().get_connection(connection_id)
        assert server.requests == []

    async def test_health(self, server: ScriptedServer, client: Make) -> None:
        server.on(f"GET {BASE}/health", server.reply(200, body=b"Successful operation"), server.reply(500))
        one = client(secret=SECRET)

        await one.health()
        with pytest.raises(ServerError):
            await one.health()
        assert authorizations(server) == [None, None]
        assert server.count(TOKEN) == 0

    async def test_health_is_not_fooled_by_a_web_page(self, server: ScriptedServer, client: Make) -> None:
        page = server.reply(200, body=b"<!doctype html>", headers={"Content-Type": "text/html; charset=utf-8"})
        server.on(f"GET {BASE}/health", page)

        with pytest.raises(AirbyteProtocolError, match="web page"):
            await client().health()


class TestWorkspaces:
    PATH = "/api/public/v1/workspaces/18dccc91-0ab1-4f72-9ed7-0b8fc27c5826"

    async def test_are_listed(self, server: ScriptedServer, client: Make) -> None:
        server.on("GET /api/public/v1/workspaces", server.reply(200, {"data": [{"workspaceId": "w"}]}))
        assert await client().list_workspaces() == [{"workspaceId": "w"}]

    async def test_notifications_are_set_again_if_no_answer_came(self, server: ScriptedServer, client: Make) -> None:
        wanted = {"success": {"webhook": {"enabled": True, "url": "https://example.com"}}}
        server.on(f"PATCH {self.PATH}", server.reset(), server.reply(200, {"notifications": wanted}))
        answer = await client().set_notifications(self.PATH.rpartition("/")[2], wanted)
        assert answer == {"notifications": wanted}
        assert [request.json() for request in server.requests] == [{"notifications": wanted}] * 2

    async def test_an_id_is_no_path(self, server: ScriptedServer, client: Make) -> None:
        with pytest.raises(ValueError, match="UUID"):
            await client().set_notifications("../jobs", {})
        assert server.requests == []

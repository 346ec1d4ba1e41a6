"""``GET /jobs``: filters, order, pages, and links that lead astray."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def start(airbyte: Any, count: int, **values: Any) -> tuple[list[str], list[int]]:
    made = await airbyte.control("POST", "/connections", {"count": count, "start": True, **values})
    return made["connection_ids"], made["job_ids"]


async def ids(airbyte: Any, **query: Any) -> list[int]:
    return [job["jobId"] for job in (await airbyte.get("/jobs", **query)).json()["data"]]


class TestPages:
    async def test_the_oldest_come_first_twenty_at_a_time(self, airbyte: Any) -> None:
        _, jobs = await start(airbyte, 25)
        assert await ids(airbyte) == jobs[:20]
        assert await ids(airbyte, offset=20) == jobs[20:]
        assert await ids(airbyte, limit=100) == jobs
        assert await ids(airbyte, limit=2, offset=3) == jobs[3:5]

    @pytest.mark.parametrize(
        "query", ["limit=101", "limit=0", "limit=x", "offset=-1", "status=done", "jobType=nap", "orderBy=jobId|ASC"]
    )
    async def test_values_out_of_range(self, airbyte: Any, query: str) -> None:
        assert (await airbyte.http.get(f"/api/public/v1/jobs?{query}")).status_code == 400

    async def test_the_next_link_leads_astray(self, airbyte: Any) -> None:
        await start(airbyte, 2)
        query = {"limit": 2, "jobType": "sync", "status": "pending", "orderBy": "updatedAt|ASC"}
        page = (await airbyte.get("/jobs", **query)).json()
        assert page["next"] == "http://airbyte-airbyte-server-svc:8001/api/public/v1/jobs?jobType=sync&limit=2&offset=2"
        assert page["previous"] == ""
        last = (await airbyte.get("/jobs", **query, offset=2)).json()
        assert (last["data"], last["next"]) == ([], "")
        assert last["previous"].endswith("?jobType=sync&limit=2&offset=0")

    async def test_the_next_link_keeps_the_connection(self, airbyte: Any) -> None:
        (connection, _), _ = await start(airbyte, 2)
        query = {"connectionId": connection, "workspaceIds": airbyte.sim.workspace.id, "status": "pending", "limit": 1}
        page = (await airbyte.get("/jobs", **query)).json()
        assert page["next"].endswith(f"/jobs?connectionId={connection}&limit=1&offset=1")


class TestFilters:
    async def test_by_what_the_job_is(self, airbyte: Any) -> None:
        other = await airbyte.control("POST", "/workspaces", {})
        hanging = {"phases": [{"status": "queued", "seconds": 0}], "end": None}
        connections, jobs = await start(airbyte, 2)
        _, clears = await start(airbyte, 1, job_type="clear", workspace_id=other["workspaceId"], script=hanging)
        assert await ids(airbyte, connectionId=connections[1]) == [jobs[1]]
        assert await ids(airbyte, jobType="reset") == clears
        assert await ids(airbyte, jobType="clear") == []
        assert await ids(airbyte, status="queued") == clears
        assert await ids(airbyte, workspaceIds=other["workspaceId"]) == clears
        both = f"{airbyte.sim.workspace.id},{other['workspaceId']}"
        assert await ids(airbyte, workspaceIds=both) == jobs + clears

    async def test_by_creation(self, airbyte: Any) -> None:
        made = await airbyte.control("POST", "/connections", {"count": 2})
        jobs = []
        for connection_id, day in zip(made["connection_ids"], (2, 1), strict=True):
            body = {"connection_id": connection_id, "created_at": f"2024-01-0{day}T00:00:00Z"}
            jobs += (await airbyte.control("POST", "/jobs", body))["job_ids"]
        assert await ids(airbyte) == jobs[::-1]
        assert await ids(airbyte, orderBy="createdAt|DESC") == jobs
        assert await ids(airbyte, createdAtStart="2024-01-01T12:00:00Z") == [jobs[0]]
        assert await ids(airbyte, createdAtEnd="2024-01-01T12:00Z") == [jobs[1]]
        assert (await airbyte.get("/jobs", createdAtEnd="yesterday")).status_code == 400

    async def test_every_change_of_status_is_an_update(self, airbyte: Any) -> None:
        _, jobs = await start(airbyte, 3, script={"phases": [{"status": "running", "seconds": 0}], "end": None})
        for job_id in (jobs[2], jobs[0]):
            await airbyte.control("POST", f"/jobs/{job_id}/end", {})
        since = airbyte.sim.world.jobs[jobs[2]].updated_at.isoformat()
        assert await ids(airbyte, updatedAtStart=since) == [jobs[0], jobs[2]]
        assert await ids(airbyte, updatedAtStart=since, orderBy="updatedAt|ASC") == [jobs[2], jobs[0]]
        assert await ids(airbyte, updatedAtEnd=since) == jobs[1:]
        assert await ids(airbyte, orderBy="updatedAt|DESC", limit=1) == [jobs[0]]

    @pytest.mark.parametrize(("release", "listed"), [("1.5", False), ("2.0", False), ("2.0.1", True), ("2.1", True)])
    async def test_without_a_type_there_are_no_refreshes_up_to_2_0(
        self, rehearse: Any, release: str, listed: bool
    ) -> None:
        async with rehearse(release=release) as airbyte:
            connections, jobs = await start(airbyte, 1, job_type="refresh")
            _, clears = await start(airbyte, 1, job_type="clear")
            assert await ids(airbyte) == jobs * listed + clears
            assert await ids(airbyte, connectionId=connections[0]) == jobs * listed
            assert await ids(airbyte, jobType="refresh") == jobs

    @pytest.mark.parametrize(
        ("parameter", "broken"),
        [("orderBy", ["orderBy"]), ("status", ["status"]), (None, ["orderBy", "status", "plain"])],
    )
    async def test_a_broken_list(self, airbyte: Any, parameter: str | None, broken: list[str]) -> None:
        await airbyte.fault("broken-list", parameter=parameter)
        job_id = (await airbyte.create()).json()["jobId"]
        queries = {"orderBy": {"orderBy": "updatedAt|ASC"}, "status": {"status": "running"}, "plain": {}}
        answers = {name: (await airbyte.get("/jobs", **query)).status_code for name, query in queries.items()}
        assert [name for name, status in answers.items() if status == 500] == broken
        assert (await airbyte.get(f"/jobs/{job_id}")).status_code == 200

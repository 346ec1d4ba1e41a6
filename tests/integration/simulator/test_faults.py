"""What goes wrong with calls of the public API, and how many of them are worked at."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events.simulator import Fault, serve_simulator

pytestmark = pytest.mark.anyio


async def statuses(airbyte: Any, count: int, path: str = "/jobs") -> list[int]:
    return [(await airbyte.get(path)).status_code for _ in range(count)]


@pytest.mark.parametrize("status", [401, 403, 404, 409, 422, 429, 500, 502, 503, 504])
async def test_a_status(airbyte: Any, status: int) -> None:
    await airbyte.fault("status", status=status, count=1)
    answer = await airbyte.get("/jobs")
    assert answer.status_code == status
    assert "retry-after" not in answer.headers
    assert await statuses(airbyte, 2) == [200, 200]


async def test_load_shedding_has_a_sentence_and_no_word_on_when_to_come_again(airbyte: Any) -> None:
    await airbyte.fault("status", status=429)
    answer = await airbyte.get("/jobs")
    assert answer.json() == {"message": "You are being rate limited."}
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    ("problem", "kind", "says"),
    [
        (None, "try-again-later", "The simulator's 409 fault"),
        ("state-conflict", "409-state-conflict", "Could not fulfill request"),
    ],
)
async def test_a_conflict_of_either_kind(airbyte: Any, problem: str | None, kind: str, says: str) -> None:
    await airbyte.fault("status", status=409, problem=problem)
    document = (await airbyte.create()).json()
    assert (document["type"].rpartition("#")[2], document["data"]) == (kind, {"message": says})


async def test_a_web_page_and_an_empty_answer(airbyte: Any) -> None:
    await airbyte.fault("html", count=1)
    answer = await airbyte.get("/jobs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    await airbyte.fault("empty", status=204)
    answer = await airbyte.get("/jobs")
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [("reset", httpx.ReadError, None), ("truncated", httpx.RemoteProtocolError, "complete message body")],
)
async def test_a_connection_that_breaks(airbyte: Any, kind: str, error: type[Exception], message: str | None) -> None:
    await airbyte.fault(kind, count=1)
    with pytest.raises(error, match=message):
        await airbyte.get("/jobs")
    assert await statuses(airbyte, 1) == [200]


@pytest.mark.parametrize("kind", ["reset", "html", "empty", "status"])
async def test_after_the_job_was_created(airbyte: Any, kind: str) -> None:
    await airbyte.fault(kind, after=True, route="POST /jobs", **({"status": 504} if kind == "status" else {}))
    try:
        assert "jobId" not in (await airbyte.create()).text
    except httpx.ReadError:
        assert kind == "reset"
    assert [job["status"] for job in (await airbyte.get("/jobs")).json()["data"]] == ["running"]


async def test_a_slow_create_whose_caller_gave_up_runs_all_the_same(airbyte: Any) -> None:
    await airbyte.fault("slow", delay=60, route="POST /jobs")
    with pytest.raises(httpx.ReadTimeout):
        await airbyte.http.post(
            "/v1/jobs", json={"connectionId": airbyte.connection_id, "jobType": "sync"}, timeout=0.05
        )
    assert [job["status"] for job in (await airbyte.get("/jobs")).json()["data"]] == ["running"]


async def test_only_on_a_route(airbyte: Any) -> None:
    job_id = (await airbyte.create()).json()["jobId"]
    await airbyte.fault("status", status=500, route="GET /jobs/{id}")
    assert await statuses(airbyte, 1) == [200]
    assert await statuses(airbyte, 2, f"/jobs/{job_id}") == [500, 500]


async def test_now_and_then(rehearse: Any) -> None:
    faults = [Fault(kind="status", status=500, probability=0.5)]
    async with rehearse(faults=faults) as airbyte:
        assert set(await statuses(airbyte, 40)) == {200, 500}


async def test_are_told_and_cleared(airbyte: Any) -> None:
    await airbyte.fault("status", status=500)
    await airbyte.fault("lost")
    await statuses(airbyte, 3)
    told = (await airbyte.control("GET", "/faults"))["faults"]
    assert [(one["id"], one["kind"], one["struck"]) for one in told] == [(1, "status", 3), (2, "lost", 0)]
    assert (await airbyte.control("GET", "/requests"))["recent"][0]["faults"] == [1]
    assert await airbyte.control("DELETE", "/faults/1") == {"cleared": 1}
    assert await statuses(airbyte, 1) == [200]
    assert await airbyte.control("DELETE", "/faults") == {"cleared": 1}


async def test_five_calls_at_a_time_and_the_sixth_waits(airbyte: Any) -> None:
    await airbyte.fault("slow", delay=60)

    async def full() -> bool:
        told = await airbyte.control("GET", "/requests")
        return bool((told["working"], told["waiting"]) == (5, 1))

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(airbyte.get, "/health")
        await airbyte.until(full)
        tasks.cancel_scope.cancel()


async def test_latency_is_that_of_every_call(rehearse: Any) -> None:
    async with rehearse(latency=0.05) as airbyte:
        await airbyte.get("/jobs")
        assert (await airbyte.control("GET", "/requests"))["recent"][0]["seconds"] >= 0.05


async def test_the_end_waits_for_nothing() -> None:
    with anyio.fail_after(30):
        async with AsyncExitStack() as later, anyio.create_task_group() as tasks:
            http = await later.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=60))
            async with serve_simulator() as sim:
                sim.add_fault(Fault(kind="slow", delay=60))
                tasks.start_soon(http.get, f"{sim.url}/v1/health")
                while not sim.traffic.working:
                    await anyio.lowlevel.checkpoint()


async def test_it_can_end_before_it_began() -> None:
    async with serve_simulator():
        pass

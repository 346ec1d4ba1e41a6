"""The control API: what it makes happen, what it tells, and what it says to nonsense."""

from __future__ import annotations

import time
from typing import Any

import pytest

from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio

UNKNOWN = "00000000-0000-4000-8000-000000000000"
MINE = "11111111-1111-4111-8111-111111111111"


class TestConnections:
    async def test_with_a_given_id(self, airbyte: Any) -> None:
        body = {"connection_id": MINE, "name": "mine", "active": False, "duration": 3}
        assert await airbyte.control("POST", "/connections", body) == {"connection_ids": [MINE], "job_ids": []}
        told = (await airbyte.control("GET", "/connections"))["connections"][-1]
        assert [told[name] for name in ("connectionId", "name", "status", "jobs")] == [MINE, "mine", "inactive", 0]
        assert (await airbyte.http.post("/_simulator/connections", json=body)).status_code == 409

    async def test_are_deleted(self, airbyte: Any) -> None:
        await airbyte.control("DELETE", f"/connections/{airbyte.connection_id}")
        assert (await airbyte.get(f"/connections/{airbyte.connection_id}")).status_code == 404

    async def test_thousands_at_once(self, airbyte: Any) -> None:
        script = {"phases": [{"status": "running", "seconds": 0}], "end": None}
        made = await airbyte.control("POST", "/connections", {"count": 2000, "start": True, "script": script})
        assert len(set(made["connection_ids"])) == len(set(made["job_ids"])) == 2000
        ended = await airbyte.control("POST", "/jobs/end", {"job_ids": made["job_ids"], "status": "failed"})
        assert ended == {"ended": made["job_ids"], "not_ended": {}}
        assert (await airbyte.control("GET", ""))["jobs"] == {"failed": 2000}

    async def test_a_workspace_of_its_own(self, airbyte: Any, server: ScriptedServer) -> None:
        server.on("POST /hook", server.reply(200))
        body = {"workspace_id": MINE, "name": "other", "webhook_url": f"{server.url}/hook"}
        assert (await airbyte.control("POST", "/workspaces", body))["workspaceId"] == MINE
        made = await airbyte.control("POST", "/connections", {"workspace_id": MINE, "start": True, "duration": 0})
        assert [one.status for one in (await airbyte.delivered(made["job_ids"][0])).deliveries] == [200]
        assert server.requests[0].json()["data"]["workspace"]["name"] == "other"


class TestJobs:
    async def test_of_somebody_else(self, airbyte: Any) -> None:
        body = {"connection_id": airbyte.connection_id, "job_type": "refresh"}
        (job_id,) = (await airbyte.control("POST", "/jobs", body))["job_ids"]
        assert (await airbyte.get(f"/jobs/{job_id}")).json()["jobType"] == "refresh"
        answer = await airbyte.http.post("/_simulator/jobs", json=body)
        assert (answer.status_code, answer.json()["error"]) == (
            409,
            f"job {job_id} of connection {airbyte.connection_id} is active",
        )

    async def test_by_another_script(self, airbyte: Any) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        script = {"phases": [{"status": "snoozing", "seconds": 0}], "end": "succeeded", "records": 7}
        await airbyte.control("PUT", f"/jobs/{job_id}/script", script)
        job = await airbyte.ended(job_id)
        assert ([status for status, _ in job.history], job.records) == (["running", "snoozing", "succeeded"], 7)

    async def test_are_ended_as_told(self, airbyte: Any) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        before = time.time()
        body = {"status": "failed", "records": 3, "bytes": 4, "error": {"message": "m", "type": "t", "origin": "o"}}
        told = await airbyte.control("POST", f"/jobs/{job_id}/end", body)
        assert [told[name] for name in ("status", "records", "bytes", "error")] == ["failed", 3, 4, body["error"]]
        committed = airbyte.sim.world.jobs[job_id].ended_at.timestamp()
        assert before <= committed <= time.time()
        assert told["history"][-1] == {"status": "failed", "at": told["committed_at"]}
        again = await airbyte.http.post(f"/_simulator/jobs/{job_id}/end", json={})
        assert (again.status_code, again.json()) == (409, {"error": f"job {job_id} has ended: failed"})
        many = await airbyte.control("POST", "/jobs/end", {"job_ids": [job_id, 4711]})
        assert many["not_ended"] == {str(job_id): "it has ended: failed", "4711": "there is no such job"}

    async def test_are_listed(self, airbyte: Any) -> None:
        made = await airbyte.control("POST", "/connections", {"count": 2, "start": True})
        await airbyte.control("POST", f"/jobs/{made['job_ids'][0]}/end", {})
        listed = await airbyte.http.get("/_simulator/jobs", params={"status": "succeeded"})
        assert [job["job_id"] for job in listed.json()["jobs"]] == made["job_ids"][:1]
        listed = await airbyte.http.get("/_simulator/jobs", params={"connection_id": made["connection_ids"][1]})
        assert [job["job_id"] for job in listed.json()["jobs"]] == made["job_ids"][1:]


class TestRequests:
    async def test_are_counted_and_kept(self, airbyte: Any) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        for path in (f"/jobs/{job_id}", "/jobs?limit=3", "/jobs/17", f"/jobs/{job_id}", "/nowhere"):
            await airbyte.http.get(f"/v1{path}")
        told = await airbyte.control("GET", "/requests")
        assert (told["total"], told["counts"]) == (
            6,
            {"POST /jobs": 1, "GET /jobs/{id}": 3, "GET /jobs": 1, "GET (unknown)": 1},
        )
        named = await airbyte.control("GET", f"/requests?job_id={job_id}")
        assert [call["number"] for call in named["recent"]] == [5, 2]
        (listed,) = (await airbyte.control("GET", "/requests?route=GET /jobs"))["recent"]
        assert [listed[name] for name in ("method", "path", "query", "status", "job_id")] == [
            "GET",
            "/jobs",
            "limit=3",
            200,
            None,
        ]
        assert len((await airbyte.control("GET", "/requests?limit=2"))["recent"]) == 2
        await airbyte.control("DELETE", "/requests")
        assert (await airbyte.control("GET", "/requests"))["total"] == 0

    async def test_wall_and_monotonic_times(self, airbyte: Any) -> None:
        before = time.monotonic()
        await airbyte.get("/health")
        (call,) = airbyte.sim.traffic.recent()
        assert before <= call.monotonic <= call.monotonic + call.seconds <= time.monotonic()
        assert abs(call.at.timestamp() - time.time()) < 60


CONNECTION = {"connection_id": UNKNOWN}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/connections", b"{", 400, "the body is a JSON object"),
        ("POST", "/connections", b"[]", 400, "the body is a JSON object"),
        ("POST", "/connections", {"script": {"phases": []}}, 422, "script: a script has at least one phase"),
        ("POST", "/connections", {"script": {}, "duration": 1}, 422, "give a script or a duration, not both"),
        ("POST", "/connections", {"script": {"end": "done"}}, 422, "script: a script ends in one of"),
        ("POST", "/connections", {"scirpt": {}}, 422, "scirpt: there is no such field; there are script, duration"),
        ("POST", "/connections", {"script": {"x": 1}}, 422, "script.x: there is no such field"),
        ("POST", "/connections", {"connection_id": "x"}, 422, "connection_id: Input should be a valid UUID"),
        ("POST", "/connections", {"count": 0}, 422, "count: Input should be greater than or equal to 1"),
        ("POST", "/connections", {"count": 2, **CONNECTION}, 422, "a connection_id is of one connection"),
        ("POST", "/connections", {"workspace_id": UNKNOWN}, 404, "there is no workspace"),
        ("PATCH", f"/connections/{UNKNOWN}", {}, 404, "there is no connection"),
        ("POST", "/jobs", {}, 422, "give either a connection_id or connection_ids"),
        ("POST", "/jobs", CONNECTION, 404, "there is no connection"),
        ("POST", "/jobs", {**CONNECTION, "created_at": "2024-01-01T00:00:00"}, 422, "a time with an offset"),
        ("GET", "/jobs/17", None, 404, "there is no job 17"),
        ("POST", "/jobs/17/end", {}, 404, "there is no job 17"),
        ("POST", "/jobs/end", {}, 422, "job_ids: "),
        ("POST", "/jobs/end", {"job_ids": [], "error": {"message": "m"}}, 422, "only a failed job has an error"),
        ("PUT", "/webhooks", {"url": "ftp://x"}, 422, "a webhook URL begins with http:// or https://"),
        (
            "PUT",
            "/webhooks",
            {"url": None, "kinds": ["queued"]},
            422,
            "no notification setting is called 'queued'",
        ),
        ("PUT", "/webhooks", {"url": None, "workspace_id": UNKNOWN}, 404, "there is no workspace"),
        ("POST", "/workspaces", {"webhook_url": "x"}, 422, "a webhook URL begins with http:// or https://"),
        ("POST", "/notifications", {"kind": "queued"}, 422, "a 'queued' notification needs a job_id"),
        ("POST", "/notifications", {"kind": "disabled"}, 422, "a 'disabled' notification needs a connection_id"),
        ("POST", "/notifications", {"kind": "raw"}, 422, "needs either a body or a text"),
        ("POST", "/faults", {"kind": "gone"}, 422, "no fault is called 'gone': lost, late"),
        ("POST", "/faults", {"kind": "status", "status": 500, "route": "/job"}, 422, "no route is called '/job'"),
        ("GET", "/requests?job_id=x", None, 422, "job_id and limit are numbers"),
        ("GET", "/nowhere", None, 404, "GET /_simulator/nowhere: Not Found"),
        ("DELETE", "/jobs", None, 405, "DELETE /_simulator/jobs: Method Not Allowed"),
    ],
)
async def test_nonsense_is_answered_in_a_sentence(
    airbyte: Any, method: str, path: str, body: Any, status: int, says: str
) -> None:
    sent = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
    answer = await airbyte.http.request(method, f"/_simulator{path}", **sent)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert says in answer.json()["error"]

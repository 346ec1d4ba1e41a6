"""The public API's jobs, oddity by oddity."""

from __future__ import annotations

from typing import Any

import pytest

from airbyte_events.events import JobError
from airbyte_events.simulator import Phase, Script

pytestmark = pytest.mark.anyio

QUICK = Script(phases=(Phase(status="pending", seconds=0), Phase(status="running", seconds=0.01)), records=45, bytes=90)
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def problem(answer: Any) -> tuple[int, str]:
    """Status and kind of a problem document, whose shape is checked."""
    document = answer.json()
    assert document.keys() == {"title", "status", "detail", "type", "data"}
    assert document["status"] == answer.status_code
    assert document["data"] == {"message": document["detail"]}
    return answer.status_code, document["type"].rpartition("#")[2]


class TestReading:
    async def test_a_job_goes_by_its_script(self, rehearse: Any) -> None:
        async with rehearse(QUICK) as airbyte:
            created = await airbyte.create()
            assert created.status_code == 200
            assert created.json().keys() == {"jobId", "status", "jobType", "startTime", "connectionId"}
            assert created.json()["status"] == "pending"
            await airbyte.ended(created.json()["jobId"])
            job = (await airbyte.get(f"/jobs/{created.json()['jobId']}")).json()
            assert (job["status"], job["rowsSynced"], job["bytesSynced"]) == ("succeeded", 45, 90)
            assert job["lastUpdatedAt"].endswith("Z")
            assert job["duration"] in ("PT0S", "PT1S")

    async def test_the_cloud_path_works_too(self, airbyte: Any) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        assert (await airbyte.http.get(f"/v1/jobs/{job_id}")).json()["jobId"] == job_id

    async def test_only_a_terminal_job_has_last_updated_at(self, airbyte: Any) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        assert "lastUpdatedAt" not in (await airbyte.get(f"/jobs/{job_id}")).json()
        await airbyte.control("POST", f"/jobs/{job_id}/end", {"status": "cancelled"})
        assert "lastUpdatedAt" in (await airbyte.get(f"/jobs/{job_id}")).json()

    async def test_an_unknown_job_is_a_conflict(self, airbyte: Any) -> None:
        assert problem(await airbyte.get("/jobs/4711")) == (409, "state-conflict")

    async def test_an_unknown_job_is_forbidden_on_cloud(self, rehearse: Any) -> None:
        async with rehearse(cloud=True) as airbyte:
            for path in ("/jobs/4711", f"/connections/{UNKNOWN}", f"/workspaces/{UNKNOWN}"):
                assert problem(await airbyte.get(path)) == (403, "forbidden")
            assert problem(await airbyte.create(connection_id=UNKNOWN)) == (403, "forbidden")

    async def test_a_failed_attempt_shows_as_incomplete(self, rehearse: Any) -> None:
        phases = [("running", 0.0), ("incomplete", 0.0), ("running", 0.01)]
        script = Script(
            phases=tuple(Phase(status=status, seconds=seconds) for status, seconds in phases),
            end="failed",
            error=JobError(message="no", type="config_error", origin="destination"),
        )
        async with rehearse(script) as airbyte:
            job_id = (await airbyte.create()).json()["jobId"]
            await airbyte.ended(job_id)
            told = await airbyte.control("GET", f"/jobs/{job_id}")
            assert [step["status"] for step in told["history"]] == ["running", "incomplete", "running", "failed"]
            assert told["attempts"] == 2
            assert told["error"] == {"message": "no", "type": "config_error", "origin": "destination"}

    async def test_a_job_in_trouble_gives_no_reason(self, airbyte: Any) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        error = {"message": "secret reason"}
        await airbyte.control("POST", f"/jobs/{job_id}/end", {"status": "failed", "error": error})
        answer = await airbyte.get(f"/jobs/{job_id}")
        assert answer.json()["status"] == "failed"
        assert "secret reason" not in answer.text

    async def test_a_success_can_lack_statistics(self, rehearse: Any) -> None:
        async with rehearse(Script(phases=QUICK.phases, records=None, bytes=None)) as airbyte:
            job_id = (await airbyte.create()).json()["jobId"]
            await airbyte.ended(job_id)
            job = (await airbyte.get(f"/jobs/{job_id}")).json()
            assert job["status"] == "succeeded"
            assert not {"rowsSynced", "bytesSynced"} & job.keys()

    async def test_a_start_at_a_full_minute_has_no_seconds(self, airbyte: Any) -> None:
        body = {"connection_id": airbyte.connection_id, "created_at": "2024-01-01T01:00:00+01:00"}
        (job_id,) = (await airbyte.control("POST", "/jobs", body))["job_ids"]
        assert (await airbyte.get(f"/jobs/{job_id}")).json()["startTime"] == "2024-01-01T00:00Z"

    async def test_times_have_no_fixed_precision(self, airbyte: Any) -> None:
        made = await airbyte.control("POST", "/connections", {"count": 3})
        body = {"connection_ids": made["connection_ids"], "created_at": "2024-01-01T00:00:01.123456Z"}
        await airbyte.control("POST", "/jobs", body)
        times = {job["startTime"] for job in (await airbyte.get("/jobs")).json()["data"]}
        assert times == {"2024-01-01T00:00:01Z", "2024-01-01T00:00:01.123Z", "2024-01-01T00:00:01.123456Z"}


class TestCreating:
    async def test_before_the_first_attempt_answers_with_the_same_job(self, rehearse: Any) -> None:
        async with rehearse(Script.hanging("pending")) as airbyte:
            first, second = await airbyte.create(), await airbyte.create()
            assert (second.status_code, second.json()["jobId"]) == (200, first.json()["jobId"])
            assert problem(await airbyte.create("clear")) == (409, "try-again-later")

    async def test_while_an_attempt_runs_is_a_conflict(self, airbyte: Any) -> None:
        await airbyte.create()
        assert problem(await airbyte.create()) == (409, "try-again-later")

    async def test_between_attempts_is_a_conflict(self, rehearse: Any) -> None:
        phases = (Phase(status="running", seconds=0), Phase(status="incomplete", seconds=0))
        async with rehearse(Script(phases=phases, end=None)) as airbyte:
            job_id = (await airbyte.create()).json()["jobId"]

            async def incomplete() -> bool:
                return bool((await airbyte.get(f"/jobs/{job_id}")).json()["status"] == "incomplete")

            await airbyte.until(incomplete)
            assert problem(await airbyte.create()) == (409, "try-again-later")

    async def test_for_an_inactive_connection_is_a_conflict(self, airbyte: Any) -> None:
        await airbyte.control("PATCH", f"/connections/{airbyte.connection_id}", {"active": False})
        assert problem(await airbyte.create()) == (409, "state-conflict")
        assert (await airbyte.get(f"/connections/{airbyte.connection_id}")).json()["status"] == "inactive"

    async def test_for_an_unknown_connection_is_not_found(self, airbyte: Any) -> None:
        assert problem(await airbyte.create(connection_id=UNKNOWN)) == (404, "resource-not-found")

    async def test_refresh_is_refused(self, airbyte: Any) -> None:
        assert problem(await airbyte.create("refresh"))[0] == 422

    @pytest.mark.parametrize("job_type", ["reset", "clear"])
    async def test_other_types(self, airbyte: Any, job_type: str) -> None:
        assert (await airbyte.create(job_type)).json()["jobType"] == job_type

    @pytest.mark.parametrize("body", [b"", b"[]", b'{"connectionId": 1, "jobType": "sync"}', b'{"jobType": "nap"}'])
    async def test_a_body_that_makes_no_sense_fails_in_the_framework(self, airbyte: Any, body: bytes) -> None:
        answer = await airbyte.http.post("/api/public/v1/jobs", content=body)
        assert (answer.status_code, answer.json()["message"]) == (400, "Bad Request")
        assert answer.json().keys() == {"message", "_links", "_embedded"}

    async def test_uses_up_the_next_scripts_first(self, airbyte: Any) -> None:
        scripts = [{"phases": [{"status": "queued", "seconds": 0}], "end": None}]
        await airbyte.control("PATCH", f"/connections/{airbyte.connection_id}", {"next_scripts": scripts})
        first = (await airbyte.create()).json()
        await airbyte.control("POST", f"/jobs/{first['jobId']}/end", {})
        assert [first["status"], (await airbyte.create()).json()["status"]] == ["queued", "running"]


class TestCancelling:
    async def test_hits_the_current_job_whichever_was_named(self, airbyte: Any) -> None:
        old = (await airbyte.create()).json()["jobId"]
        await airbyte.control("POST", f"/jobs/{old}/end", {})
        new = (await airbyte.create()).json()["jobId"]
        answer = await airbyte.http.delete(f"/api/public/v1/jobs/{old}")
        assert (answer.json()["jobId"], answer.json()["status"]) == (old, "succeeded")
        assert (await airbyte.get(f"/jobs/{new}")).json()["status"] == "cancelled"

    async def test_when_nothing_runs_is_a_conflict(self, airbyte: Any) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        assert (await airbyte.http.delete(f"/api/public/v1/jobs/{job_id}")).json()["status"] == "cancelled"
        assert problem(await airbyte.http.delete(f"/api/public/v1/jobs/{job_id}")) == (409, "state-conflict")
        assert problem(await airbyte.http.delete("/api/public/v1/jobs/4711")) == (409, "state-conflict")


class TestTheRest:
    @pytest.mark.parametrize("path", ["/nowhere", "/api/public/v1/nowhere", "/v1/applications/token", "/v1/"])
    async def test_unknown_paths(self, airbyte: Any, path: str) -> None:
        answer = await airbyte.http.get(path)
        assert (answer.status_code, answer.json()["_links"]["self"]["href"]) == (404, path)

    async def test_health(self, airbyte: Any) -> None:
        assert (await airbyte.get("/health")).text == "Successful operation"

    async def test_connections(self, airbyte: Any) -> None:
        one = (await airbyte.get(f"/connections/{airbyte.connection_id}")).json()
        assert (one["name"], one["status"]) == ("orders", "active")
        assert (await airbyte.get("/connections", workspaceIds=one["workspaceId"])).json()["data"] == [one]
        assert (await airbyte.get("/connections", workspaceIds=UNKNOWN)).json()["data"] == []
        assert problem(await airbyte.get(f"/connections/{UNKNOWN}")) == (404, "resource-not-found")
        assert (await airbyte.get("/connections/x")).status_code == 400

    async def test_patching_notifications_merges(self, airbyte: Any) -> None:
        path = f"/workspaces/{airbyte.sim.workspace.id}"
        webhooks = (("success", {"enabled": True}), ("success", {"url": "http://a/"}), ("failure", {"url": "b"}))
        for kind, webhook in webhooks:
            body = {"notifications": {kind: {"webhook": webhook}, "queued": {"webhook": webhook}}}
            answer = await airbyte.http.patch(f"/api/public/v1{path}", json=body)
        told = (await airbyte.get(path)).json()
        assert told == answer.json()
        assert told["notifications"] == {
            "success": {"webhook": {"enabled": True, "url": "http://a/"}},
            "failure": {"webhook": {"url": "b"}},
        }
        assert (await airbyte.get("/workspaces")).json()["data"] == [told]

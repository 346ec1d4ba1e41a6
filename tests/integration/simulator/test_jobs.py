"""The public API's jobs, oddity by oddity."""

from __future__ import annotations

from typing import Any

import pytest

from airbyte_events.events import JobError
from airbyte_events.simulator import Phase, Script

pytestmark = pytest.mark.anyio

QUICK = Script(phases=(Phase(status="pending", seconds=0), Phase(status="running", seconds=0.01)), records=45, bytes=90)
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def problem(answer: Any) -> tuple[int, str, str | None]:
    """Status, kind and message of a problem document, whose shape is checked."""
    document = answer.json()
    assert document.keys() == {"title", "status", "detail", "type", "data"}
    assert document["status"] == answer.status_code
    kind = document["type"].rpartition("#")[2]
    assert kind.removeprefix(f"{answer.status_code}-") == document["title"]
    return answer.status_code, kind, document["data"].get("message")


NO_JOB = (409, "409-state-conflict", "Job is not currently running")
FORBIDDEN = (403, "forbidden", "You don't have permission to access this resource.")


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

    async def test_an_unknown_job_is_a_conflict_to_an_admin(self, airbyte: Any) -> None:
        assert problem(await airbyte.get("/jobs/4711")) == NO_JOB

    @pytest.mark.parametrize("options", [{"cloud": True}, {"admin": False}])
    async def test_what_is_unknown_is_forbidden_to_others_and_on_cloud(self, rehearse: Any, options: Any) -> None:
        async with rehearse(**options) as airbyte:
            for path in ("/jobs/4711", f"/connections/{UNKNOWN}", f"/workspaces/{UNKNOWN}"):
                assert problem(await airbyte.get(path)) == FORBIDDEN
            assert problem(await airbyte.create(connection_id=UNKNOWN)) == FORBIDDEN

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

    async def test_counts_are_told_while_it_runs_and_move(self, airbyte: Any) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        seen = [(await airbyte.get(f"/jobs/{job_id}")).json()["bytesSynced"]]

        async def moved() -> bool:
            seen.append((await airbyte.get("/jobs")).json()["data"][0]["bytesSynced"])
            return bool(seen[-1] > seen[0])

        await airbyte.until(moved)
        assert seen == sorted(seen)
        assert seen[-1] < 90_000

    async def test_a_job_that_nobody_attempted_has_no_counts(self, rehearse: Any) -> None:
        async with rehearse(Script.hanging("queued")) as airbyte:
            assert not {"rowsSynced", "bytesSynced"} & (await airbyte.create()).json().keys()

    async def test_a_start_at_a_full_minute_has_no_seconds(self, airbyte: Any) -> None:
        body = {"connection_id": airbyte.connection_id, "created_at": "2024-01-01T01:00:00+01:00"}
        (job_id,) = (await airbyte.control("POST", "/jobs", body))["job_ids"]
        assert (await airbyte.get(f"/jobs/{job_id}")).json()["startTime"] == "2024-01-01T00:00Z"

    async def test_times_are_whole_seconds(self, airbyte: Any) -> None:
        body = {"connection_id": airbyte.connection_id, "created_at": "2024-01-01T00:00:01.999999Z"}
        (job_id,) = (await airbyte.control("POST", "/jobs", body))["job_ids"]
        await airbyte.control("POST", f"/jobs/{job_id}/end", {})
        job = (await airbyte.get(f"/jobs/{job_id}")).json()
        assert job["startTime"] == "2024-01-01T00:00:01Z"
        assert "." not in job["lastUpdatedAt"]


class TestCreating:
    async def test_before_the_first_attempt_answers_with_the_same_job(self, rehearse: Any) -> None:
        async with rehearse(Script.hanging("pending")) as airbyte:
            first, second = await airbyte.create(), await airbyte.create()
            assert (second.status_code, second.json()["jobId"]) == (200, first.json()["jobId"])

    async def test_a_sync_before_a_reset_s_first_attempt_answers_with_the_reset(self, rehearse: Any) -> None:
        async with rehearse(Script.hanging("pending")) as airbyte:
            first, second = await airbyte.create("reset"), await airbyte.create()
            assert second.json() == first.json()

    async def test_while_an_attempt_runs_is_a_conflict(self, airbyte: Any) -> None:
        await airbyte.create()
        says = f"A sync is already running for: {airbyte.connection_id}"
        assert problem(await airbyte.create()) == (409, "try-again-later", says)

    async def test_between_attempts_answers_with_the_same_job(self, rehearse: Any) -> None:
        phases = (Phase(status="running", seconds=0), Phase(status="incomplete", seconds=0))
        async with rehearse(Script(phases=phases, end=None)) as airbyte:
            job_id = (await airbyte.create()).json()["jobId"]

            async def incomplete() -> bool:
                return bool((await airbyte.get(f"/jobs/{job_id}")).json()["status"] == "incomplete")

            await airbyte.until(incomplete)
            assert (await airbyte.create()).json()["jobId"] == job_id

    @pytest.mark.parametrize("job_type", ["reset", "clear"])
    @pytest.mark.parametrize("status", ["pending", "running"])
    async def test_a_clear_or_reset_cancels_what_is_there(self, rehearse: Any, job_type: str, status: str) -> None:
        async with rehearse(Script.hanging(status)) as airbyte:
            sync = (await airbyte.create()).json()["jobId"]
            created = await airbyte.create(job_type)
            assert (created.status_code, created.json()["jobType"]) == (200, "reset")
            assert created.json()["jobId"] > sync
            assert (await airbyte.get(f"/jobs/{sync}")).json()["status"] == "cancelled"
            assert (await airbyte.get(f"/jobs/{created.json()['jobId']}")).json()["status"] == status

    async def test_for_an_inactive_connection_is_a_conflict(self, airbyte: Any) -> None:
        await airbyte.control("PATCH", f"/connections/{airbyte.connection_id}", {"active": False})
        says = "The connection is inactive: only an active connection can be synced"
        assert problem(await airbyte.create()) == (409, "409-state-conflict", says)
        assert (await airbyte.get(f"/connections/{airbyte.connection_id}")).json()["status"] == "inactive"

    async def test_for_an_unknown_connection_is_not_found(self, airbyte: Any) -> None:
        answer = await airbyte.create(connection_id=UNKNOWN)
        assert problem(answer)[:2] == (404, "resource-not-found")
        assert answer.json()["data"] == {"resourceType": "connection", "resourceId": UNKNOWN}

    async def test_refresh_is_refused(self, airbyte: Any) -> None:
        assert problem(await airbyte.create("refresh"))[0] == 422

    @pytest.mark.parametrize("job_type", ["reset", "clear"])
    async def test_a_clear_is_stored_and_told_as_a_reset(self, airbyte: Any, job_type: str) -> None:
        job_id = (await airbyte.create(job_type)).json()["jobId"]
        assert (await airbyte.get(f"/jobs/{job_id}")).json()["jobType"] == "reset"
        assert [job["jobId"] for job in (await airbyte.get("/jobs", jobType="reset")).json()["data"]] == [job_id]
        assert (await airbyte.get("/jobs", jobType="clear")).json()["data"] == []

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

    @pytest.mark.parametrize("status", ["succeeded", "cancelled"])
    async def test_when_nothing_runs_answers_with_the_job_as_it_is(self, airbyte: Any, status: str) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        await airbyte.control("POST", f"/jobs/{job_id}/end", {"status": status})
        before = (await airbyte.get(f"/jobs/{job_id}")).json()
        answer = await airbyte.http.delete(f"/api/public/v1/jobs/{job_id}")
        assert (answer.status_code, answer.json()) == (200, before)

    async def test_an_unknown_job_is_a_conflict(self, airbyte: Any) -> None:
        assert problem(await airbyte.http.delete("/api/public/v1/jobs/4711")) == NO_JOB


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
        assert problem(await airbyte.get(f"/connections/{UNKNOWN}"))[:2] == (404, "resource-not-found")
        assert (await airbyte.get("/connections/x")).status_code == 400

    async def test_patching_notifications_merges(self, airbyte: Any) -> None:
        path = f"/workspaces/{airbyte.sim.workspace.id}"
        webhooks = (("success", {"url": "http://a/"}), ("success", {"enabled": True}), ("failure", {"url": "b"}))
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

    @pytest.mark.parametrize("webhook", [{"enabled": True}, {"enabled": True, "url": ""}])
    async def test_enabling_notifications_without_a_url_is_refused(self, airbyte: Any, webhook: Any) -> None:
        path = f"/api/public/v1/workspaces/{airbyte.sim.workspace.id}"
        body = {"name": "new", "notifications": {"failure": {"webhook": webhook}}}
        answer = await airbyte.http.patch(path, json=body)
        says = "A webhook URL is required to enable failure webhook notifications"
        assert problem(answer) == (400, "bad-request", says)
        told = (await airbyte.http.get(path)).json()
        assert (told["name"], told["notifications"]) == ("Simulated workspace", {})

    @pytest.mark.parametrize(("release", "has"), [("1.5", False), ("1.6", True), ("2.1", True)])
    async def test_workspaces_have_notifications_since_1_6(self, rehearse: Any, release: str, has: bool) -> None:
        async with rehearse(release=release, webhook_url="http://a/") as airbyte:
            path = f"/api/public/v1/workspaces/{airbyte.sim.workspace.id}"
            body = {"name": "new", "notifications": {"failure": {"webhook": {"enabled": True, "url": "http://b/"}}}}
            patched = (await airbyte.http.patch(path, json=body)).json()
            assert (patched["name"], "notifications" in patched) == ("new", has)
            assert (await airbyte.http.get(path)).json() == patched
            assert (await airbyte.get("/workspaces")).json()["data"] == [patched]
            assert airbyte.sim.workspace.webhook_url("failure") == ("http://b/" if has else "http://a/")

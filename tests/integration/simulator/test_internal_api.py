"""The internal API, call by call and release by release."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from airbyte_events.events import JobError
from airbyte_events.simulator import Phase, Script
from airbyte_events.simulator.models import sample_id
from support.servers import accepting

pytestmark = pytest.mark.anyio

UNKNOWN = "00000000-0000-4000-8000-000000000000"
HALTED = Script(
    phases=(Phase(status="running", seconds=0), Phase(status="running", seconds=0, stalled=True)),
    end=None,
    records=1000,
    bytes=9000,
)
CALLS: dict[str, dict[str, Any]] = {
    "/jobs/get_without_logs": {"id": 1},
    "/jobs/list": {"configTypes": ["sync"]},
    "/stream_statuses/list": {"workspaceId": sample_id("workspace", 1), "jobId": 1, "pagination": {}},
    "/notifications/try_webhook": {"notificationTrigger": "sync_success"},
    "/connections/sync_progress": {},
    "/connections/events/list": {"eventTypes": ["SYNC_CANCELLED"]},
    "/connections/refresh": {"refreshMode": "Merge"},
}


async def call(airbyte: Any, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
    """Call with the connection's id where the call takes one."""
    given = {"connectionId": airbyte.connection_id, "configId": airbyte.connection_id, **CALLS[path], **(body or {})}
    answer = await airbyte.http.post(f"/api/v1{path}", json=given)
    assert isinstance(answer, httpx.Response)
    return answer


async def get(airbyte: Any, path: str, body: dict[str, Any] | None = None) -> Any:
    answer = await call(airbyte, path, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestReleases:
    @pytest.mark.parametrize(
        ("release", "lacks"),
        [
            ("0.49.30", set(CALLS)),
            ("0.50", set(list(CALLS)[3:])),
            ("0.50.38", {"/connections/events/list", "/connections/refresh"}),
            *((release, set()) for release in ("1.0", "1.5", "2.0", "2.1", "cloud")),
        ],
    )
    async def test_a_release_has_the_calls_that_exist_since(self, rehearse: Any, release: str, lacks: set[str]) -> None:
        async with rehearse(release=release, max_calls=1) as airbyte:
            await airbyte.create()
            body = {"slackConfiguration": {"webhook": f"{airbyte.sim.url}/nowhere"}}
            answers = {path: (await call(airbyte, path, body)).status_code for path in CALLS}
        assert answers == {path: 404 if path in lacks else 200 for path in CALLS}

    async def test_the_cloud_is_a_release_too(self, rehearse: Any) -> None:
        async with rehearse(release="cloud") as airbyte:
            assert airbyte.sim.describe()["api_url"] == f"{airbyte.sim.url}/v1"
            assert (await call(airbyte, "/jobs/get_without_logs")).status_code == 403

    async def test_the_token_is_that_of_the_public_api(self, rehearse: Any) -> None:
        async with rehearse(client_id="me", client_secret="s3cret") as airbyte:
            assert (await call(airbyte, "/connections/sync_progress")).status_code == 401

    @pytest.mark.parametrize(("admin", "status"), [(True, 404), (False, 403)])
    async def test_what_is_unknown_has_no_problem_document(self, rehearse: Any, admin: bool, status: int) -> None:
        async with rehearse(admin=admin) as airbyte:
            for path, body in (
                ("/jobs/get_without_logs", {"id": 4711}),
                ("/connections/refresh", {"connectionId": UNKNOWN}),
            ):
                answer = await call(airbyte, path, body)
                assert (answer.status_code, [*answer.json()]) == (status, ["errorId"])

    async def test_wrong_requests(self, airbyte: Any) -> None:
        for path, body in (
            ("/connections/refresh", {"refreshMode": "merge"}),
            ("/connections/refresh", {"streams": [{"streamName": "no such"}]}),
            ("/connections/sync_progress", {"connectionId": "no UUID"}),
            ("/notifications/try_webhook", {"notificationTrigger": "no such"}),
            ("/notifications/try_webhook", {}),
            ("/jobs/list", {"configTypes": None}),
        ):
            assert (await call(airbyte, path, body)).status_code == 400, path

    async def test_faults_and_the_record_of_calls_include_it(self, airbyte: Any) -> None:
        await airbyte.fault("status", status=403, route="POST /connections/sync_progress")
        assert (await call(airbyte, "/connections/sync_progress")).status_code == 403
        assert (await call(airbyte, "/jobs/list")).status_code == 200
        recorded = await airbyte.control("GET", "/requests")
        assert recorded["counts"] == {"POST /connections/sync_progress": 1, "POST /jobs/list": 1}


class TestReasons:
    async def test_each_attempt_has_its_reason(self, rehearse: Any) -> None:
        first = JobError(message="lost the source", type="transient_error", origin="source", retryable=True)
        last = JobError(message="no such table", type="config_error", origin="destination", stream="public.orders")
        phases = (
            Phase(status="running", seconds=0),
            Phase(status="incomplete", seconds=0, error=first),
            Phase(status="running", seconds=0),
        )
        async with rehearse(Script(phases=phases, end="failed", error=last, records=0)) as airbyte:
            job_id = (await airbyte.create()).json()["jobId"]
            await airbyte.ended(job_id)
            info = await get(airbyte, "/jobs/get_without_logs", {"id": job_id})
        attempts = [each["attempt"] for each in info["attempts"]]
        assert [each["status"] for each in attempts] == ["failed", "failed"]
        reasons = [each["failureSummary"]["failures"][0] for each in attempts]
        assert [each["externalMessage"] for each in reasons] == ["lost the source", "no such table"]
        assert (reasons[0]["retryable"], reasons[0]["failureType"]) == (True, "transient_error")
        assert reasons[1]["streamDescriptor"] == {"namespace": "public", "name": "orders"}
        assert "retryable" not in reasons[1]
        assert attempts[1]["failureSummary"]["partialSuccess"] is False
        assert (info["job"]["status"], info["job"]["configType"]) == ("failed", "sync")

    async def test_the_record_of_requests_names_the_job(self, airbyte: Any) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        for body in (b'{"id": %d}' % job_id, b'{"id": 4711}', b"{}", b"[", b"\xff"):
            await airbyte.http.post("/api/v1/jobs/get_without_logs", content=body)
        query = f"/requests?route=POST /jobs/get_without_logs&job_id={job_id}"
        assert len((await airbyte.control("GET", query))["recent"]) == 1

    async def test_a_job_that_succeeded_has_none(self, airbyte: Any) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        await airbyte.control("POST", f"/jobs/{job_id}/end", {"records": 45, "bytes": 90})
        info = await get(airbyte, "/jobs/get_without_logs", {"id": job_id})
        assert [each["attempt"]["status"] for each in info["attempts"]] == ["succeeded"]
        assert "failureSummary" not in info["attempts"][0]["attempt"]
        assert [each["recordsCommitted"] for each in info["job"]["streamAggregatedStats"]] == [23, 22]


class TestProgress:
    async def test_records_move_stream_by_stream_until_the_script_stalls(self, rehearse: Any) -> None:
        async with rehearse(HALTED) as airbyte:
            job = airbyte.sim.world.jobs[(await airbyte.create()).json()["jobId"]]
            before = await get(airbyte, "/connections/sync_progress")
            assert (before["jobId"], before["recordsEmitted"], before["configType"]) == (job.id, 0, "sync")
            job.done = 0.5625
            now = await get(airbyte, "/connections/sync_progress")
            assert (now["recordsEmitted"], now["recordsCommitted"], now["bytesEmitted"]) == (562, 500, 5062)
            assert [each["recordsEmitted"] for each in now["streams"]] == [500, 62]
            assert await get(airbyte, "/connections/sync_progress") == now, "a stalled job moves nothing"
            states = (await get(airbyte, "/stream_statuses/list", {"jobId": job.id}))["streamStatuses"]
            assert [each["runState"] for each in states] == ["COMPLETE", "RUNNING"]
            await airbyte.control("POST", f"/jobs/{job.id}/end", {"status": "failed", "records": 562})
            states = (await get(airbyte, "/stream_statuses/list", {"jobId": job.id}))["streamStatuses"]
            assert [each["runState"] for each in states] == ["COMPLETE", "INCOMPLETE"]
            assert (await get(airbyte, "/connections/sync_progress"))["streams"] == []

    async def test_a_new_script_continues_from_where_the_job_is(self, rehearse: Any) -> None:
        async with rehearse(HALTED) as airbyte:
            job_id = (await airbyte.create()).json()["jobId"]
            airbyte.sim.world.jobs[job_id].done = 0.5
            script = {"phases": [{"status": "running", "seconds": 600, "stalled": True}], "records": 1000}
            await airbyte.control("PUT", f"/jobs/{job_id}/script", script)
            assert (await get(airbyte, "/connections/sync_progress"))["recordsEmitted"] == 500

    async def test_the_list_has_estimates(self, airbyte: Any) -> None:
        for _ in range(2):
            job_id = (await airbyte.create()).json()["jobId"]
            await airbyte.control("POST", f"/jobs/{job_id}/end")
        listed = await get(airbyte, "/jobs/list", {"pagination": {"pageSize": 1, "rowOffset": 0}})
        assert listed["totalJobCount"] == 2
        assert [each["job"]["id"] for each in listed["jobs"]] == [job_id]
        assert listed["jobs"][0]["attempts"][0]["totalStats"]["estimatedRecords"] == 1000
        assert (await get(airbyte, "/jobs/list", {"configTypes": ["refresh"]}))["jobs"] == []


class TestCancellations:
    async def test_a_user_who_cancels_is_named(self, airbyte: Any) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        await airbyte.http.delete(f"/api/public/v1/jobs/{job_id}")
        events = (await get(airbyte, "/connections/events/list"))["events"]
        assert [(each["eventType"], each["summary"]["jobId"], each["user"]["name"]) for each in events] == [
            ("SYNC_CANCELLED", job_id, "Simulated user")
        ]
        assert (await get(airbyte, "/connections/events/list", {"eventTypes": ["SYNC_FAILED"]}))["events"] == []

    async def test_airbyte_itself_cancels_what_waits_in_the_capacity_queue(self, rehearse: Any) -> None:
        async with rehearse(capacity=1, queue_limit=0.05) as airbyte:
            other = airbyte.sim.world.add_connection(Script.hanging())
            await airbyte.create()
            queued = (await airbyte.create(connection_id=other.id)).json()
            assert queued["status"] == "queued"
            job = await airbyte.ended(queued["jobId"])
            assert [status for status, _ in job.history] == ["queued", "cancelled"]
            assert (job.cancelled_by, job.attempts) == ("airbyte", [])
            assert (await get(airbyte, "/connections/events/list", {"connectionId": other.id}))["events"] == []

    async def test_a_queued_job_runs_once_another_one_ends(self, rehearse: Any) -> None:
        async with rehearse(Script.lasting(0.05), capacity=1) as airbyte:
            other = airbyte.sim.world.add_connection(Script.lasting(0.05))
            ids = [(await airbyte.create(connection_id=one)).json()["jobId"] for one in (None, other.id)]
            last = await airbyte.ended(ids[1])
        assert [status for status, _ in last.history] == ["pending", "queued", "running", "succeeded"]
        assert last.history[2][1] >= airbyte.sim.world.jobs[ids[0]].ended_at


class TestRefreshes:
    async def test_a_refresh_of_some_streams(self, airbyte: Any) -> None:
        stream = {"streamName": "orders", "streamNamespace": "public"}
        made = (await get(airbyte, "/connections/refresh", {"refreshMode": "Truncate", "streams": [stream]}))["job"]
        assert (made["configType"], made["configId"]) == ("refresh", airbyte.connection_id)
        assert made["refreshConfig"] == {"streamsToRefresh": [{"name": "orders", "namespace": "public"}]}
        assert (await airbyte.get(f"/jobs/{made['id']}")).json()["jobType"] == "refresh"

    async def test_while_a_job_is_active_the_next_sync_becomes_the_refresh(self, airbyte: Any) -> None:
        job_id = (await airbyte.create()).json()["jobId"]
        assert await get(airbyte, "/connections/refresh") == {}
        await airbyte.control("POST", f"/jobs/{job_id}/end")
        assert (await airbyte.create()).json()["jobType"] == "refresh"

    @pytest.mark.parametrize(("release", "listed"), [("2.0", 0), ("2.1", 1)])
    async def test_up_to_2_0_lists_leave_it_out(self, rehearse: Any, release: str, listed: int) -> None:
        async with rehearse(release=release) as airbyte:
            await get(airbyte, "/connections/refresh")
            assert len((await airbyte.get("/jobs")).json()["data"]) == listed
            assert len((await airbyte.get("/jobs", jobType="refresh")).json()["data"]) == 1


class TestTestNotifications:
    @pytest.mark.parametrize(
        ("path", "status"), [("/_simulator/notifications", "failed"), ("/api/v1/jobs/list", "failed")]
    )
    async def test_a_receiver_that_refuses(self, airbyte: Any, path: str, status: str) -> None:
        body = {"slackConfiguration": {"webhook": airbyte.sim.url + path}}
        assert (await get(airbyte, "/notifications/try_webhook", body))["status"] == status

    async def test_a_receiver_that_is_not_there(self, airbyte: Any) -> None:
        body = {"slackConfiguration": {"webhook": "http://127.0.0.1:9/"}}
        assert await get(airbyte, "/notifications/try_webhook", body) == {"status": "failed", "message": "ConnectError"}

    async def test_a_receiver_that_accepts(self, airbyte: Any) -> None:
        received: list[bytes] = []

        async def receive(stream: Any) -> None:
            async with stream:
                received.append(await stream.receive())
                await stream.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

        async with accepting(receive) as port:
            body = {"slackConfiguration": {"webhook": f"http://127.0.0.1:{port}/hook"}}
            assert await get(airbyte, "/notifications/try_webhook", body) == {"status": "succeeded"}
        assert received[0].startswith(b"POST /hook HTTP/1.1")

"""What an operator token may do, and nobody else."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from airbyte_events.events import JobStatus
from airbyte_events.simulator import Fault, Script
from support.listener import API_TOKEN, OPERATOR_TOKEN, Installation, bearer, instance_of, settings_of

pytestmark = pytest.mark.anyio

OURS = {"X-Requested-With": "airbyte-events"}


class OperatedListener(Installation):
    """A listener with an operator token, and a simulated Airbyte behind."""

    async def watched(self, script: Script, status: JobStatus | None = None) -> str:
        """Start a job that the listener knows, end it with that status, and return its path."""
        job = self.start(script=script)
        if status is not None:
            self.sim.world.end_job(job, status.value)
        jobs = {"jobs": [{"instance": "default", "job_id": job.id}]}
        (await self.http.post("/v1/watches", json=jobs)).raise_for_status()
        return f"/v1/jobs/default/{job.id}"


@pytest.fixture
async def operated() -> AsyncIterator[OperatedListener]:
    async with OperatedListener.open(token=OPERATOR_TOKEN, operator_tokens=(SecretStr(OPERATOR_TOKEN),)) as operated:
        yield operated


class TestRetry:
    async def test_starts_a_sync_once_and_logs_who_did_it(
        self, operated: OperatedListener, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        path = await operated.watched(Script.hanging(), JobStatus.FAILED)
        first, again = [await operated.http.post(f"{path}/retry") for _ in range(2)]
        assert (first.status_code, first.json()["how"]) == (202, "started")
        assert (again.status_code, again.json()["how"]) == (202, "attached")
        assert again.json()["job_id"] == first.json()["job_id"]
        assert len(operated.sim.world.jobs) == 2
        [started, _] = [each.getMessage() for each in caplog.records if "operator action" in each.getMessage()]
        assert "action=retry" in started
        assert f"job_started=default/{first.json()['job_id']}" in started
        assert "client=127.0.0.1" in started
        assert OPERATOR_TOKEN not in caplog.text
        shown = await operated.http.get(f"/v1/jobs/default/{first.json()['job_id']}")
        assert shown.json()["job"]["status"] in ("pending", "running")

    async def test_says_what_airbyte_says(self, operated: OperatedListener) -> None:
        path = await operated.watched(Script.hanging(), JobStatus.FAILED)
        operated.sim.add_fault(Fault(kind="status", status=403, route="POST /jobs"))
        answer = await operated.http.post(f"{path}/retry")
        assert answer.status_code == 502
        assert "403" in answer.json()["error"]


class TestCancel:
    async def test_cancels_an_active_job(self, operated: OperatedListener) -> None:
        path = await operated.watched(Script.hanging())
        assert (await operated.http.post(f"{path}/cancel")).status_code == 202
        assert [job.status for job in operated.sim.world.jobs.values()] == ["cancelled"]

    async def test_refuses_one_that_has_completed(self, operated: OperatedListener) -> None:
        path = await operated.watched(Script.hanging(), JobStatus.SUCCEEDED)
        answer = await operated.http.post(f"{path}/cancel")
        assert answer.status_code == 409
        assert answer.json()["error"].endswith("has completed: succeeded")


class TestBody:
    async def test_is_shown_without_secrets(self, operated: OperatedListener) -> None:
        body = {
            "data": {
                "jobId": 7,
                "success": False,
                "errorMessage": "connect to postgres://me:hunter2@db.example.com/x failed, password=hunter3",
                "config": {"api_key": "hunter4", "host": "db.example.com"},
            }
        }
        event = (await operated.http.post(operated.served.webhooks, json=body)).json()["event"]
        answer = await operated.http.get(f"/v1/notifications/{event}/body")
        assert answer.status_code == 200
        assert "hunter" not in answer.text
        shown = json.loads(answer.json()["body"])["data"]
        assert shown["config"] == {"api_key": "***", "host": "db.example.com"}
        assert shown["errorMessage"] == "connect to postgres://***@db.example.com/x failed, password=***"
        assert (await operated.http.get("/v1/notifications/999/body")).status_code == 404


class TestWhoMay:
    async def test_an_api_token_may_not(self, operated: OperatedListener) -> None:
        path = await operated.watched(Script.hanging())
        asked = [("POST", f"{path}/retry"), ("POST", f"{path}/cancel"), ("GET", "/v1/notifications/1/body")]
        for method, each in asked:
            answer = await operated.http.request(method, each, headers=bearer(API_TOKEN))
            assert answer.status_code == 403, each
            assert "OPERATOR_TOKENS" in answer.json()["error"]
            assert (await operated.http.request(method, each, headers={"Authorization": ""})).status_code == 401
        assert [job.terminal for job in operated.sim.world.jobs.values()] == [False]

    async def test_an_operator_token_reads_like_an_api_token(self, operated: OperatedListener) -> None:
        assert (await operated.http.get("/v1/jobs")).status_code == 200

    async def test_a_session_may_as_much_as_its_token_and_another_site_nothing(
        self, operated: OperatedListener
    ) -> None:
        path = await operated.watched(Script.hanging())
        for token, operator in ((API_TOKEN, False), (OPERATOR_TOKEN, True)):
            async with httpx.AsyncClient(base_url=operated.served.url, trust_env=False) as browser:
                entered = await browser.post("/session", json={"token": token}, headers=OURS)
                assert entered.json() == {"signed_in": True, "operator": operator}
                assert (await browser.get("/session")).json() == {"signed_in": True, "operator": operator}
                assert (await browser.post(f"{path}/cancel")).status_code == 401
                answer = await browser.post(f"{path}/cancel", headers=OURS)
                assert answer.status_code == (202 if operator else 403)

    async def test_nobody_may_by_default(self) -> None:
        async with OperatedListener.open() as operated:
            assert (await operated.http.post("/v1/jobs/default/1/retry")).status_code == 403

    async def test_a_removed_token_may_no_longer(self, operated: OperatedListener) -> None:
        without = settings_of(instance_of(operated.sim.url))
        operated.served.listener.secrets.apply(without)
        assert (await operated.http.get("/v1/jobs")).status_code == 401

"""Webhooks, as Airbyte's Java client sends them."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import SocketStream

from airbyte_events._utils.times import parse_time
from airbyte_events.airbyte.notification_kinds import NotificationKind
from airbyte_events.airbyte.notifications import parse
from airbyte_events.simulator import Script
from airbyte_events.simulator.notification_bodies import SAMPLES
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def told(airbyte: Any, server: ScriptedServer) -> Any:
    """The simulator, with its webhooks going to ``server``."""
    server.on("POST /hook", server.reply(202, {}))
    await airbyte.control("PUT", "/webhooks", {"url": f"{server.url}/hook"})
    return airbyte


async def end(airbyte: Any, status: str = "succeeded", job_type: str = "sync", **values: Any) -> Any:
    job_id = (await airbyte.create(job_type)).json()["jobId"]
    await airbyte.control("POST", f"/jobs/{job_id}/end", {"status": status, **values})
    return await airbyte.delivered(job_id)


class TestJobs:
    async def test_the_request_is_java_s(self, told: Any, server: ScriptedServer) -> None:
        await end(told)
        (request,) = server.requests
        assert request.headers == {
            "connection": "Upgrade, HTTP2-Settings",
            "http2-settings": "AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA",
            "upgrade": "h2c",
            "user-agent": request.headers["user-agent"],
            "content-type": "application/json",
            "content-length": str(len(request.body)),
            "host": server.url.removeprefix("http://"),
        }

    async def test_the_body_of_a_success(self, told: Any, server: ScriptedServer) -> None:
        job = await end(told, records=45, bytes=90)
        body = server.requests[0].json()
        data = body["data"]
        route = "orders from Simulated source to Simulated destination"
        assert body["text"].startswith(f"Your connection {route} succeeded\n")
        link = f"{told.sim.url}/workspaces/{told.sim.workspace.id}/connections/{told.connection_id}"
        assert body["blocks"][0] == {
            "type": "section",
            "text": {"type": "mrkdwn", "text": f"Sync completed: <{link}|orders>"},
        }
        assert data["connection"] == {"id": told.connection_id, "name": "orders", "url": link}
        assert [sorted(data[part]) for part in ("workspace", "source", "destination")] == [["id", "name", "url"]] * 3
        assert parse_time(data["startedAt"]) == job.created_at.replace(microsecond=0)
        assert parse_time(data["finishedAt"]) == job.updated_at.replace(microsecond=0)
        rest = {key: value for key, value in data.items() if not isinstance(value, dict) and not key.endswith("edAt")}
        seconds = rest.pop("durationInSeconds")
        assert rest.pop("durationFormatted") == f"{seconds} sec"
        assert rest == {
            "jobId": job.id,
            "bytesEmitted": 90,
            "bytesCommitted": 90,
            "recordsEmitted": 45,
            "recordsCommitted": 45,
            "recordsFilteredOut": 0,
            "bytesFilteredOut": 0,
            "bytesEmittedFormatted": "90 B",
            "bytesCommittedFormatted": "90 B",
            "success": True,
            "errorMessage": None,
            "errorType": None,
            "errorOrigin": None,
        }

    async def test_the_body_of_a_failure_has_the_reason(self, told: Any, server: ScriptedServer) -> None:
        error = {"message": "Wrong password", "type": "config_error", "origin": "destination"}
        await end(told, "failed", error=error)
        body = server.requests[0].json()
        assert body["blocks"][0]["text"]["text"].startswith("Sync failure occurred: <")
        assert "Wrong password" in body["text"]
        names = ("success", "errorMessage", "errorType", "errorOrigin")
        assert [body["data"][name] for name in names] == [False, "Wrong password", "config_error", "destination"]

    async def test_the_status_is_committed_before(self, airbyte: Any, server: ScriptedServer) -> None:
        seen = []

        async def look(stream: SocketStream) -> None:
            async with httpx.AsyncClient(trust_env=False) as http:
                job_id = server.requests[-1].json()["data"]["jobId"]
                seen.append((await http.get(f"{airbyte.sim.url}/v1/jobs/{job_id}")).json()["status"])
            await server.reply(200)(stream)

        server.on("POST /hook", look)
        await airbyte.control("PUT", "/webhooks", {"url": f"{server.url}/hook"})
        job = await end(airbyte)
        assert seen == ["succeeded"]
        told = await airbyte.control("GET", f"/jobs/{job.id}")
        assert told["committed_at"] <= told["webhooks"][0]["sent_at"] <= told["webhooks"][0]["answered_at"]
        assert told["webhooks"][0]["status"] == 200

    @pytest.mark.parametrize(
        ("status", "job_type"), [("cancelled", "sync"), ("succeeded", "reset"), ("failed", "clear")]
    )
    async def test_some_ends_are_silent(self, told: Any, server: ScriptedServer, status: str, job_type: str) -> None:
        job = await end(told, status, job_type)
        assert job.deliveries == []
        assert (await told.control("GET", "/webhooks"))["recent"] == []

    async def test_each_kind_has_its_own_url(self, told: Any, server: ScriptedServer) -> None:
        body = {"notifications": {"failure": {"webhook": {"enabled": False}}}}
        await told.http.patch(f"/v1/workspaces/{told.sim.workspace.id}", json=body)
        assert (await end(told, "failed")).deliveries == []
        assert len((await end(told)).deliveries) == 1

    async def test_one_attempt_only(self, told: Any, server: ScriptedServer) -> None:
        server.on("POST /hook", server.reply(500), server.reset(), server.reply(200))
        deliveries = [(await end(told)).deliveries[0] for _ in range(2)]
        assert [(one.status, one.error) for one in deliveries] == [(500, None), (None, deliveries[1].error)]
        assert deliveries[1].error in ("ReadError", "RemoteProtocolError")
        assert len(server.requests) == 2
        assert (await told.control("GET", "/webhooks"))["counts"] == {
            "sent": 2,
            "answered": 1,
            "refused": 1,
            "failed": 1,
        }

    async def test_a_redirect_is_not_followed(self, told: Any, server: ScriptedServer) -> None:
        server.on("POST /hook", server.reply(302, headers={"Location": "/elsewhere"}))
        assert (await end(told)).deliveries[0].status == 302
        assert len(server.requests) == 1

    async def test_a_slow_receiver_holds_up_nothing_else(self, told: Any, server: ScriptedServer) -> None:
        answered = anyio.Event()
        server.on("POST /hook", server.held(answered, server.reply(200)), server.reply(200))
        slow = (await told.create()).json()["jobId"]
        await told.control("POST", f"/jobs/{slow}/end", {})
        (delivery,) = told.sim.world.jobs[slow].deliveries
        await told.until(lambda: _true_when(len(server.requests) == 1))
        await end(told)
        assert not delivery.over.is_set()
        answered.set()
        await told.delivered(slow)
        assert delivery.status == 200

    async def test_a_connection_can_be_deleted_with_its_job(self, told: Any) -> None:
        job_id = (await told.create()).json()["jobId"]
        await told.control("DELETE", f"/connections/{told.connection_id}")
        assert (await told.get(f"/jobs/{job_id}")).json()["status"] == "cancelled"


async def _true_when(condition: bool) -> bool:
    return condition


class TestOnDemand:
    async def send(self, airbyte: Any, server: ScriptedServer, kind: str, **values: Any) -> Any:
        (delivery,) = (await airbyte.control("POST", "/notifications", {"kind": kind, **values}))["deliveries"]
        assert delivery["status"] == 202
        return server.requests[-1]

    async def test_queued_looks_like_a_failure_whose_end_is_the_last_update(
        self, told: Any, server: ScriptedServer
    ) -> None:
        job_id = (await told.create()).json()["jobId"]
        body = (await self.send(told, server, "queued", job_id=job_id)).json()
        assert body["blocks"][0]["text"]["text"].startswith("Sync queued: <")
        job = told.sim.world.jobs[job_id]
        assert (body["data"]["jobId"], body["data"]["success"], body["data"]["errorMessage"]) == (job_id, False, None)
        assert parse_time(body["data"]["finishedAt"]) == job.updated_at.replace(microsecond=0)
        assert not job.terminal

    @pytest.mark.parametrize("name", SAMPLES)
    async def test_each_sample_is_read_as_its_kind(self, told: Any, server: ScriptedServer, name: str) -> None:
        job_id = (await end(told)).id
        ids = {"job_id": job_id, "connection_id": told.connection_id}
        body = {"kind": name, **ids}
        (delivery,) = (await told.control("POST", "/notifications", body))["deliveries"]
        kind = SAMPLES[name].kind
        assert delivery["kind"] == (*kind.settings, kind.value)[0]
        notification = parse(server.requests[-1].body)
        assert notification.kind is kind
        about = {"job": (None if name == "text-only" else job_id, told.connection_id), None: (None, None)}
        if kind is not NotificationKind.TEST:
            expected = about.get(SAMPLES[name].about, (None, told.connection_id))
            assert (notification.job_id, notification.connection_id) == expected

    async def test_the_test_button(self, told: Any, server: ScriptedServer) -> None:
        bodies = [(await self.send(told, server, "test")).json() for _ in range(2)]
        title = bodies[0]["blocks"][0]["text"]["text"]
        assert title.startswith("[THIS IS A TEST NOTIFICATION] Sync completed: <")
        assert [(body["data"]["jobId"], body["data"]["success"]) for body in bodies] == [(10, True)] * 2
        assert bodies[0]["data"]["connection"]["id"] != bodies[1]["data"]["connection"]["id"]
        hello = (await self.send(told, server, "hello")).json()
        assert list(hello) == ["text"]
        assert hello["text"].startswith("Hello World!")

    async def test_the_test_button_for_failures(self, told: Any, server: ScriptedServer) -> None:
        body = (await self.send(told, server, "test-failure")).json()
        title = body["blocks"][0]["text"]["text"]
        assert title.startswith("[THIS IS A TEST NOTIFICATION] Sync failure occurred: <")
        assert (body["data"]["jobId"], body["data"]["success"], body["data"]["errorOrigin"]) == (10, False, "source")

    @pytest.mark.parametrize(
        ("kind", "title"),
        [
            ("test-disabled", "Connection disabled: <"),
            ("test-disabled-warning", "Warning - repeated connection failures: <"),
            ("test-schema-change", "The schema of '<"),
        ],
    )
    async def test_the_test_button_for_those_without_data(
        self, told: Any, server: ScriptedServer, kind: str, title: str
    ) -> None:
        body = (await self.send(told, server, kind)).json()
        assert sorted(body) == ["blocks", "text"]
        assert body["blocks"][0]["text"]["text"].startswith(f"[THIS IS A TEST NOTIFICATION] {title}")

    @pytest.mark.parametrize(
        ("kind", "title"),
        [
            ("disabled", "Connection disabled: <"),
            ("disabled-warning", "Warning - repeated connection failures: <"),
            ("schema-change", ""),
        ],
    )
    async def test_those_without_data(self, told: Any, server: ScriptedServer, kind: str, title: str) -> None:
        body = (await self.send(told, server, kind, connection_id=told.connection_id)).json()
        assert sorted(body) == ["blocks", "text"]
        assert body["blocks"][0]["text"]["text"].startswith(title)
        assert told.connection_id in body["text"]

    async def test_a_lie_about_a_running_job(self, told: Any, server: ScriptedServer) -> None:
        job_id = (await told.create()).json()["jobId"]
        body = (await self.send(told, server, "succeeded", job_id=job_id, tag="NOTE")).json()
        assert body["data"]["success"] is True
        assert body["blocks"][0]["text"]["text"].startswith("[NOTE] Sync completed: <")
        old = (await self.send(told, server, "text-only", job_id=job_id)).json()
        assert list(old) == ["text"]

    async def test_any_body_to_anywhere(self, told: Any, server: ScriptedServer) -> None:
        server.on("POST /other", server.reply(202))
        url = f"{server.url}/other"
        assert (await self.send(told, server, "raw", url=url, body={"odd": 1})).json() == {"odd": 1}
        assert (await self.send(told, server, "raw", url=url, text="")).body == b""

    async def test_without_a_url_it_is_refused(self, airbyte: Any) -> None:
        answer = await airbyte.http.post("/_simulator/notifications", json={"kind": "test"})
        assert answer.status_code == 409
        assert "has no webhook URL" in answer.json()["error"]


class TestFaults:
    async def test_lost(self, told: Any, server: ScriptedServer) -> None:
        await told.fault("lost", count=1)
        (lost,), (sent,) = (await end(told)).deliveries, (await end(told)).deliveries
        assert (lost.sent_at, lost.fault) == (None, "lost")
        assert sent.status == 202
        assert len(server.requests) == 1

    async def test_doubled(self, told: Any, server: ScriptedServer) -> None:
        await told.fault("doubled")
        assert [one.status for one in (await end(told)).deliveries] == [202, 202]
        assert server.requests[0].body == server.requests[1].body

    async def test_late(self, told: Any) -> None:
        await told.fault("late", delay=0.05)
        job = await end(told)
        assert (job.deliveries[0].sent_at - job.ended_at).total_seconds() >= 0.05

    async def test_reordered(self, told: Any, server: ScriptedServer) -> None:
        await told.fault("reordered", count=1, delay=60)
        first = (await told.create()).json()["jobId"]
        await told.control("POST", f"/jobs/{first}/end", {})
        second = await end(told)
        await told.delivered(first)
        assert [request.json()["data"]["jobId"] for request in server.requests] == [second.id, first]

    async def test_reordered_with_nothing_after_it(self, told: Any) -> None:
        await told.fault("reordered", delay=0.01)
        assert (await end(told)).deliveries[0].status == 202

    async def test_only_where_it_applies(self, told: Any) -> None:
        await told.fault("lost", route="failure")
        assert (await end(told)).deliveries[0].status == 202
        assert (await end(told, "failed")).deliveries[0].status is None


async def test_what_is_under_way_is_given_up_at_the_end(rehearse: Any, server: ScriptedServer) -> None:
    server.on("POST /hook", server.hang())
    with anyio.fail_after(30):
        async with rehearse(Script.lasting(0), webhook_url=f"{server.url}/hook") as airbyte:
            await airbyte.create()
            await airbyte.until(lambda: _true_when(len(server.requests) == 1))

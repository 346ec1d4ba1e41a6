"""Airbyte's API is asked, and nothing else that somebody names."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import anyio
import pytest
from anyio.abc import SocketStream

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.listener.settings import InstanceSettings
from airbyte_events.monitor.monitor import ASKED_AT_ONCE, ASKED_PER_SECOND
from airbyte_events.simulator import Fault, Script
from support.exposed import ExposedListener, body, listening, until_confirmed
from support.servers import ScriptedServer, accepting
from support.waiting import until

pytestmark = pytest.mark.anyio


class TestOutwardRequests:
    """Airbyte's API is asked, and nothing else that somebody names."""

    @pytest.fixture
    async def canary(self) -> AsyncIterator[tuple[str, list[bytes]]]:
        """The address of a server, and what it was asked."""
        asked: list[bytes] = []

        async def take(stream: SocketStream) -> None:
            async with stream:
                asked.append(await stream.receive())

        async with accepting(take) as port:
            yield f"http://127.0.0.1:{port}", asked

    async def test_no_url_of_a_payload_is_requested(
        self, exposed: ExposedListener, canary: tuple[str, list[bytes]]
    ) -> None:
        url, asked = canary
        job = exposed.sim.world.start_job(exposed.sim.world.add_connection(Script.hanging()))
        exposed.sim.world.end_job(job, "succeeded")
        part = {"id": url, "name": url, "url": url}
        parts = dict.fromkeys(("workspace", "connection", "source", "destination"), part)
        content = json.loads(body(job.id, **parts, errorMessage=url))
        content["text"] = f"<{url}>"
        content["blocks"] += [{"type": "image", "image_url": url}, {"type": "section", "accessory": {"url": url}}]
        content["response_url"] = content["callback"] = content["next"] = url
        sent = {"X-Forwarded-Host": urlsplit(url).netloc, "Host": urlsplit(url).netloc, "Referer": url, "Origin": url}
        answer = await exposed.http.post(exposed.webhook(), content=json.dumps(content), headers=sent)
        assert answer.status_code == 202
        page = await exposed.get("/v1/events", params={"after": await origin(exposed), "wait": 10})
        assert [each["data"]["job_id"] for each in page.json()["events"]] == [job.id]
        await exposed.healthy()
        assert asked == []

    async def test_redirects_of_the_api_are_not_followed(
        self, server: ScriptedServer, canary: tuple[str, list[bytes]], caplog: pytest.LogCaptureFixture
    ) -> None:
        url, asked = canary
        location = {"Location": f"{url}/api/public/v1/jobs"}
        for route in ("POST /api/public/v1/applications/token", "GET /api/public/v1/jobs", "GET /api/public/v1/jobs/7"):
            server.on(route, *(server.reply(status, {}, location) for status in (301, 302, 303, 307, 308)))
        airbyte = InstanceSettings(airbyte_url=f"{server.url}/api/public/v1")
        async with listening(instances={"default": airbyte}) as exposed:
            assert (await exposed.http.post(exposed.webhook(), content=body(7))).status_code == 202
            await until(lambda: server.count("GET /api/public/v1/jobs/7") > 0)
            await until(lambda: "could not confirm notifications" in caplog.text)
        assert asked == []


class TestForgedNotifications:
    """Who knows the webhook URL and nothing else."""

    async def test_cause_a_bounded_number_of_requests(self, exposed: ExposedListener) -> None:
        count = 12 * ASKED_AT_ONCE
        real = exposed.sim.world.start_job(exposed.sim.world.add_connection(Script.hanging()))
        began = anyio.current_time()
        before = sum(exposed.sim.traffic.counts.values())
        for start in range(0, count, 3):
            # A few at a time: each is a request of its own, unless that is bounded.
            for number in range(start, start + 3):
                content = body(1_000_000 + number)
                assert (await exposed.http.post(exposed.webhook(), content=content)).status_code == 202
            if start == count // 2 // 3 * 3:
                exposed.sim.world.end_job(real, "succeeded")
                assert (await exposed.http.post(exposed.webhook(), content=body(real.id))).status_code == 202

        async def outcomes() -> list[str]:
            found = (await exposed.get("/v1/notifications", params={"limit": 1000})).json()["notifications"]
            return [each["outcome"] for each in found]

        await until_confirmed(exposed)
        found = await outcomes()
        requests = sum(exposed.sim.traffic.counts.values()) - before
        seconds = anyio.current_time() - began
        # Four for those under way when a second begins, and one page or two for each look.
        assert requests <= ASKED_AT_ONCE + 2 * ASKED_PER_SECOND * (seconds + 1) + 4
        # The true one among them is confirmed, and no other.
        assert found.count("confirmed") == 1
        assert (await exposed.get(f"/v1/jobs/default/{real.id}")).json()["job"]["status"] == "succeeded"
        assert len((await exposed.get("/v1/jobs")).json()["jobs"]) == 1

    async def test_ends_of_long_ago_do_not_have_all_jobs_listed(self, exposed: ExposedListener) -> None:
        long_ago = format_time(utcnow() - timedelta(days=3650))

        async def forge(number: int) -> None:
            forged = body(2_000_000 + number, startedAt=long_ago, finishedAt=long_ago)
            assert (await exposed.http.post(exposed.webhook(), content=forged)).status_code == 202

        # Many at once, so that lists are requested for them.
        async with anyio.create_task_group() as tasks:
            for number in range(2 * ASKED_AT_ONCE):
                tasks.start_soon(forge, number)
        await until_confirmed(exposed)
        lists = [dict(parse_qsl(call.query)) for call in exposed.sim.traffic.recent("GET /jobs")]
        # Without a time polling asks for refreshes alone, one page of them, to know whether lists leave those out.
        untimed = [each for each in lists if "updatedAtStart" not in each]
        assert [each.get("jobType") for each in untimed] == ["refresh"] * len(untimed)
        assert len(untimed) <= 1
        since = [each["updatedAtStart"] for each in lists if "updatedAtStart" in each]
        assert len(since) > 1
        assert min(since) > (format_time(utcnow() - timedelta(days=1)) or "")

    async def test_answers_do_not_wait_for_airbyte(self, exposed: ExposedListener) -> None:
        exposed.sim.add_fault(Fault(kind="slow", delay=30.0))
        with anyio.fail_after(30):
            for number in range(50):
                assert (await exposed.http.post(exposed.webhook(), content=body(number + 1))).status_code == 202
        exposed.sim.faults.clear()


async def origin(exposed: ExposedListener) -> str:
    """The cursor before the first event."""
    epoch, _, _ = (await exposed.get("/v1/events")).json()["cursor"].partition("-")
    return f"{epoch}-0"

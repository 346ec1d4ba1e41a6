"""Watches, jobs and the inbox over a socket, with a simulated Airbyte behind."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from airbyte_events._utils.times import parse_time, utcnow
from airbyte_events.simulator import Fault
from airbyte_events.simulator.models import Job
from airbyte_events.store.location import StoreLocation
from airbyte_events.store.registry import store_location
from support.listener import API_TOKEN, Installation, instance_of, serve_listener, settings_of
from support.servers import connect
from support.waiting import until

pytestmark = pytest.mark.anyio


def ref(job_id: Any, instance: Any = "default") -> dict[str, Any]:
    return {"instance": instance, "job_id": job_id}


class AskedListener(Installation):
    """A served listener for two instances, ``default`` and ``other``, of the same simulator, whose polling is idle."""

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.http.get(f"/v1{path}", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def watch(self, *refs: Any) -> Any:
        answer = await self.http.post("/v1/watches", json={"jobs": list(refs)})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def told(self, after: str, **params: Any) -> list[tuple[int, str]]:
        """What the feed tells next."""
        page = await self.get("/events", after=after, wait=10, **params)
        return [(each["data"]["job_id"], each["data"]["status"]) for each in page["events"]]

    async def end(self, job: Job, status: str) -> None:
        """End a job and wait until its webhooks are answered."""
        self.sim.world.end_job(job, status)
        with anyio.fail_after(30):
            for delivery in job.deliveries:
                await delivery.over.wait()

    async def settled(self) -> list[dict[str, Any]]:
        """The inbox, once nothing is pending."""
        with anyio.fail_after(30):
            while True:
                found: list[dict[str, Any]] = (await self.get("/notifications"))["notifications"]
                if all(each["outcome"] != "pending" for each in found):
                    return found


@asynccontextmanager
async def listening(store: StoreLocation) -> AsyncIterator[AskedListener]:
    async with AskedListener.open("default", "other", store=store) as api:
        # The pollers' first looks find nothing and are not in the way.
        await until(lambda: api.sim.traffic.counts["GET /jobs"] >= 2 and not api.sim.traffic.working)
        yield api


@pytest.fixture
async def api(caplog: pytest.LogCaptureFixture) -> AsyncIterator[AskedListener]:
    async with listening(store_location("memory:")) as api:
        yield api
    assert not [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]


class TestFreshness:
    async def test_is_the_last_poll_of_each_airbyte(self, api: AskedListener) -> None:
        page = await api.get("/jobs")
        assert set(page["as_of"]) == {"default", "other"}
        assert all(parse_time(each) for each in page["as_of"].values())
        assert set((await api.get("/jobs", instance="other"))["as_of"]) == {"other"}
        status = {each["name"]: each["looked_at"] for each in (await api.get("/status"))["instances"]}
        assert page["as_of"] == status
        job = api.start()
        await api.watch(ref(job.id))
        assert (await api.get(f"/jobs/default/{job.id}"))["as_of"] == status["default"]

    async def test_is_unknown_until_airbyte_answers(self) -> None:
        async with (
            serve_listener(settings_of(instance_of("http://127.0.0.1:1"))) as served,
            httpx.AsyncClient(base_url=served.url, headers=served.headers, trust_env=False) as http,
        ):
            assert (await http.get("/v1/jobs")).json()["as_of"] == {"default": None}


class TestReceipts:
    """Tasks report that they have received completions."""

    async def report(self, api: AskedListener, *receipts: Any) -> int:
        answer = await api.http.post("/v1/receipts", json={"receipts": list(receipts)})
        assert answer.status_code == 202, answer.text
        stored: int = answer.json()["receipts"]
        return stored

    async def test_the_job_shows_when_each_task_received_its_completion(self, api: AskedListener) -> None:
        page = "https://airflow.example.com/dags/orders/runs/manual__1/tasks"
        job, ages = api.start(), {"seconds_ago": 2.0, "waited_seconds": 60.0}
        await api.watch(ref(job.id))
        assert await self.report(api, ref(job.id) | ages) == 0
        await api.end(job, "succeeded")
        await api.settled()
        assert await self.report(api, ref(job.id) | ages | {"task_url": f"{page}/sync"}, ref(999) | ages) == 1
        assert await self.report(api, ref(job.id) | ages | {"task_url": f"{page}/wait", "seconds_ago": 1}) == 1
        # A task that runs again.
        assert await self.report(api, ref(job.id) | ages | {"task_url": f"{page}/sync", "seconds_ago": 0}) == 1
        shown = (await api.get(f"/jobs/default/{job.id}"))["job"]
        assert [each["task_url"] for each in shown["receipts"]] == [f"{page}/sync", f"{page}/wait"]
        # By the listener's clock: the task's may differ.
        received_at, waiting_since = (
            parse_time(shown["receipts"][0][name]) for name in ("received_at", "waiting_since")
        )
        assert received_at is not None
        assert waiting_since is not None
        assert received_at - waiting_since == timedelta(seconds=60)
        assert received_at < utcnow() - timedelta(seconds=2)
        # The job had no task yet.
        assert shown["task_url"] == f"{page}/sync"

    async def test_airbyte_is_not_asked(self, api: AskedListener) -> None:
        job = api.start()
        assert await self.report(api, ref(job.id) | {"seconds_ago": 0, "waited_seconds": 0}) == 0
        assert api.sim.traffic.counts["GET /jobs/{id}"] == 0

    async def test_another_job_of_the_number_is_left_alone(self, api: AskedListener) -> None:
        job = api.start()
        await api.watch(ref(job.id))
        await api.end(job, "succeeded")
        await api.settled()
        receipt = ref(job.id) | {"seconds_ago": 0, "waited_seconds": 0, "connection_id": "another"}
        assert await self.report(api, receipt) == 0
        assert "receipts" not in (await api.get(f"/jobs/default/{job.id}"))["job"]

    @pytest.mark.parametrize(
        ("receipts", "fault"),
        [
            ("no", "receipts: send"),
            ([{"seconds_ago": 0, "waited_seconds": 0}], "job_id"),
            ([ref(1, "none") | {"seconds_ago": 0, "waited_seconds": 0}], "instance must be one of default, other"),
            ([ref(1)], "seconds_ago and waited_seconds"),
            ([ref(1) | {"seconds_ago": -1, "waited_seconds": 0}], "seconds_ago and waited_seconds"),
            ([ref(1) | {"seconds_ago": 0, "waited_seconds": 1e9}], "seconds_ago and waited_seconds"),
            ([ref(1) | {"seconds_ago": 0, "waited_seconds": 0, "started_at": "soon"}], "started_at"),
            ([ref(1)] * 1001, "at most 1000 per call"),
        ],
    )
    async def test_a_wrong_one_is_refused(self, api: AskedListener, receipts: Any, fault: str) -> None:
        answer = await api.http.post("/v1/receipts", json={"receipts": receipts})
        assert answer.status_code == 400
        assert fault in answer.json()["error"]


class TestWatches:
    async def test_tell_the_state_and_then_the_feed_does(self, api: AskedListener) -> None:
        job = api.start()
        answer = await api.watch(ref(job.id))
        (state,) = answer["jobs"]
        assert (state["job_id"], state["status"], state["origin"]) == (job.id, "running", "submit")
        assert state["connection_id"] == job.connection.id
        assert answer["unknown"] == []
        await api.end(job, "succeeded")
        assert await api.told(answer["cursor"], terminal="true") == [(job.id, "succeeded")]
        (state,) = (await api.watch(ref(job.id)))["jobs"]
        assert (state["status"], state["previous_status"], state["origin"]) == ("succeeded", "running", "webhook")

    async def test_are_idempotent_and_ask_airbyte_once(self, api: AskedListener) -> None:
        job = api.start()
        first = await api.watch(ref(job.id), ref(job.id))
        asked = api.sim.traffic.counts["GET /jobs/{id}"]
        assert asked == 1
        for _ in range(3):
            again = await api.watch(ref(job.id))
            assert again["jobs"] == first["jobs"]
        assert api.sim.traffic.counts["GET /jobs/{id}"] == asked

    async def test_the_page_of_the_first_waiting_task_stays_with_the_job(self, api: AskedListener) -> None:
        page = "https://airflow.example.com/dags/orders/runs/manual__1/tasks/sync"
        job, other = api.start(), api.start()
        await api.watch(ref(job.id) | {"task_url": page}, ref(other.id))
        await api.watch(ref(job.id) | {"task_url": f"{page}2"})
        await api.end(job, "succeeded")
        await api.end(other, "failed")
        await api.settled()
        detail = await api.get(f"/jobs/default/{job.id}")
        assert detail["job"]["task_url"] == detail["history"][-1]["data"]["task_url"] == page
        assert "task_url" not in (await api.get(f"/jobs/default/{other.id}"))["job"]
        # One that completed before it was watched.
        await api.watch(ref(other.id) | {"task_url": page})
        assert (await api.get(f"/jobs/default/{other.id}"))["job"]["task_url"] == page

    @pytest.mark.parametrize(
        "page",
        [
            "javascript:alert(1)",
            "https://me:hunter2@a.example.com",
            f"https://a/{'x' * 2_000}",
            "http://a:99999/",
            5,
            None,
            {},
        ],
    )
    async def test_what_is_no_web_page_is_ignored(self, api: AskedListener, page: Any) -> None:
        job = api.start()
        (state,) = (await api.watch(ref(job.id) | {"task_url": page}))["jobs"]
        assert state["job_id"] == job.id
        assert "task_url" not in (await api.get(f"/jobs/default/{job.id}"))["job"]

    async def test_the_page_of_another_job_s_task_is_ignored(self, api: AskedListener) -> None:
        job = api.start()
        watched = ref(job.id) | {"connection_id": "another", "task_url": "https://airflow.example.com"}
        await api.watch(watched)
        assert "task_url" not in (await api.get(f"/jobs/default/{job.id}"))["job"]

    async def test_name_those_that_airbyte_does_not_know(self, api: AskedListener) -> None:
        job = api.start()
        answer = await api.watch(ref(job.id), ref(999), ref(10**18 - 1), ref(job.id, "other"))
        assert sorted((each["instance"], each["job_id"]) for each in answer["jobs"]) == [
            ("default", job.id),
            ("other", job.id),
        ]
        assert sorted(each["job_id"] for each in answer["unknown"]) == [999, 10**18 - 1]

    async def test_of_a_thousand_are_one_look(self, api: AskedListener) -> None:
        jobs = [api.start() for _ in range(1_000)]
        before = api.sim.traffic.total
        answer = await api.watch(*(ref(job.id) for job in jobs))
        assert {each["job_id"] for each in answer["jobs"]} == {job.id for job in jobs}
        named = api.sim.traffic.counts["GET /connections/{id}"]
        assert api.sim.traffic.total - before - named <= 20
        # Names are requested within a limit, and left out beyond it.
        assert named <= 60
        assert (await api.watch())["jobs"] == []

    async def test_stand_though_airbyte_is_down(self, api: AskedListener) -> None:
        job, other = api.start(), api.start()
        await api.watch(ref(other.id))
        fault = api.sim.add_fault(Fault(kind="status", status=401))
        answer = await api.watch(ref(job.id), ref(other.id))
        assert [each["job_id"] for each in answer["jobs"]] == [other.id]
        assert answer["unknown"] == []
        api.sim.faults.clear(fault.id)
        assert len((await api.watch(ref(job.id)))["jobs"]) == 1

    async def test_refuse_with_a_sentence(self, api: AskedListener) -> None:
        bodies: list[Any] = [
            [],
            {},
            None,
            "jobs",
            {"jobs": None},
            {"jobs": {}},
            {"jobs": [5]},
            {"jobs": [{}]},
            {"jobs": [{"job_id": 5}]},
            {"jobs": [ref(5, "nobody")]},
            {"jobs": [ref(5, None)]},
            {"jobs": [ref(5, ["default"])]},
            *({"jobs": [ref(wrong)]} for wrong in (0, -1, "5", 5.0, True, None, 2**63, [5])),
            {"jobs": [ref(5)] * 1_001},
        ]
        contents = [json.dumps(body).encode() for body in bodies]
        contents += [b"", b"{", b"\xff", b"[" * 100_000, b'{"jobs": [' + b" " * 300_000 + b"]}"]
        for content in contents:
            answer = await api.http.post("/v1/watches", content=content)
            assert answer.status_code == 400, content[:60]
            assert len(answer.json()["error"]) > 10
        assert api.sim.traffic.counts["GET /jobs/{id}"] == 0

    async def test_whoever_leaves_within_the_body_harms_nobody(self, api: AskedListener) -> None:
        async with await connect(api.served.url) as stream:
            head = f"POST /v1/watches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_TOKEN}\r\n"
            await stream.send(head.encode() + b"Content-Length: 99\r\n\r\n{")
            await anyio.wait_all_tasks_blocked()
        assert (await api.watch())["jobs"] == []


class TestJobs:
    async def test_are_paged_newest_first_and_filtered(self, api: AskedListener) -> None:
        jobs = [api.start() for _ in range(7)]
        await api.watch(*(ref(job.id) for job in jobs))
        await api.watch(ref(jobs[0].id, "other"))
        await api.end(jobs[2], "failed")
        assert (await api.settled())[0]["outcome"] == "confirmed"
        seen, params = [], {"limit": 3}
        while True:
            page = await api.get("/jobs", **params)
            assert len(page["jobs"]) <= 3
            seen += [(each["instance"], each["job_id"]) for each in page["jobs"]]
            if page["next"] is None:
                break
            params["before"] = page["next"]
        assert seen[:2] == [("default", jobs[2].id), ("other", jobs[0].id)]
        assert len(seen) == len(set(seen)) == 8
        for filters, number in (
            ({"instance": "other"}, 1),
            ({"job_id": f"{jobs[0].id},{jobs[1].id}"}, 3),
            ({"connection_id": jobs[2].connection.id}, 1),
            ({"status": "failed"}, 1),
            ({"terminal": "false"}, 7),
            ({"terminal": "true", "instance": "other"}, 0),
        ):
            assert len((await api.get("/jobs", **filters))["jobs"]) == number, filters

    async def test_one_has_its_history_and_its_notification(self, api: AskedListener) -> None:
        job = api.start()
        await api.watch(ref(job.id))
        await api.end(job, "failed")
        (notification,) = await api.settled()
        detail = await api.get(f"/jobs/default/{job.id}")
        assert detail["job"]["status"] == "failed"
        assert detail["job"]["error"] == {"message": "Something failed", "type": "system_error", "origin": "source"}
        assert [each["data"]["status"] for each in detail["history"]] == ["running", "failed"]
        assert [each["source"] for each in detail["history"]] == [f"{api.sim.url}/api/public/v1"] * 2
        assert detail["notification"] == notification
        silent = api.start("reset")
        await api.watch(ref(silent.id))
        assert (await api.get(f"/jobs/default/{silent.id}"))["notification"] is None

    async def test_404_for_one_that_is_not_known(self, api: AskedListener) -> None:
        for path in ("default/5", "nobody/5", f"default/{2**63}", "default/" + "9" * 5_000, "default/x", "default/0"):
            assert (await api.http.get(f"/v1/jobs/{path}")).status_code == 404, path
        for path in ("default/-1", "default/%D9%A3", "default/1/", "default"):
            assert (await api.http.get(f"/v1/jobs/{path}")).json() == {"error": "not found"}

    async def test_400_with_a_sentence(self, api: AskedListener) -> None:
        for path in ("/jobs", "/notifications"):
            for name, value in (
                ("limit", "0"),
                ("limit", "1001"),
                ("before", "-1"),
                ("before", "x"),
                ("before", "nan"),
            ):
                answer = await api.http.get(f"/v1{path}", params={name: value})
                assert answer.status_code == 400
                assert answer.json()["error"].startswith(f"{name}: ")
        assert (await api.http.get("/v1/jobs", params={"status": "over"})).status_code == 400


class TestNotifications:
    async def test_are_listed_with_what_became_of_them(self, api: AskedListener) -> None:
        ended, running = api.start(), api.start()
        await api.end(ended, "succeeded")
        await api.settled()
        bodies = [{"data": {"jobId": job_id, "success": True}} for job_id in (running.id, 999)]
        for body in [*bodies, {"text": "Hello World! test"}, {"who": "knows"}]:
            assert (await api.http.post(api.served.webhooks, json=body)).is_success
        assert (await api.http.post(api.served.webhooks, content=b"no json")).status_code == 400
        found = await api.settled()
        assert [(each["kind"], each["job_id"], each["outcome"]) for each in found] == [
            ("rejected", None, "rejected"),
            ("unknown", None, "ignored"),
            ("test", None, "ignored"),
            ("success", 999, "unknown_job"),
            ("success", running.id, "unconfirmed"),
            ("success", ended.id, "confirmed"),
        ]
        assert set(found[0]) == {"id", "instance", "received_at", "kind", "job_id", "outcome", "settled_at"}
        page = await api.get("/notifications", limit=4)
        rest = await api.get("/notifications", limit=4, before=page["next"])
        assert page["notifications"] + rest["notifications"] == found
        assert rest["next"] is None

    async def test_i6_pages_of_large_ones_are_shorter(self, api: AskedListener) -> None:
        for number in range(40):
            assert (
                await api.http.post(api.served.webhooks, json={"text": f"{number}" + "x" * 60_000})
            ).status_code == 200
        seen: list[int] = []
        pages = 0
        following: dict[str, Any] = {}
        while following.get("before", "") is not None:
            page = await api.get("/notifications", limit=1000, **following)
            assert len(page["notifications"]) < 40
            seen += [each["id"] for each in page["notifications"]]
            following = {"before": page["next"]}
            pages += 1
        assert seen == sorted(seen, reverse=True)
        assert (len(seen), pages) == (40, 2)

    async def test_replaying_confirms_again(self, api: AskedListener) -> None:
        job = api.start()
        body = {"data": {"jobId": job.id, "success": True}}
        id_ = (await api.http.post(api.served.webhooks, json=body)).json()["event"]
        assert [each["outcome"] for each in await api.settled()] == ["unconfirmed"]
        api.sim.workspace.set_webhook(None)
        cursor = (await api.get("/events"))["cursor"]
        await api.end(job, "succeeded")
        for _ in range(2):
            answer = await api.http.post(f"/v1/notifications/{id_}/replay")
            assert (answer.status_code, answer.json()) == (202, {"event": id_})
            assert [each["outcome"] for each in await api.settled()] == ["confirmed"]
        assert await api.told(cursor) == [(job.id, "succeeded")]

    async def test_what_can_not_be_replayed(self, api: AskedListener) -> None:
        ignored = (await api.http.post(api.served.webhooks, json={"who": "knows"})).json()["event"]
        await api.http.post(api.served.webhooks, content=b"")
        for id_ in (ignored, ignored + 1):
            assert (await api.http.post(f"/v1/notifications/{id_}/replay")).status_code == 409
        for missing in ("99", "0", "-1", "x", str(2**63 - 1), str(2**63), "9" * 5_000):
            assert (await api.http.post(f"/v1/notifications/{missing}/replay")).status_code == 404
        assert (await api.http.get(f"/v1/notifications/{ignored}/replay")).status_code == 404


async def test_503_while_the_store_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.db"
    async with listening(store_location(f"sqlite:///{path}")) as api:
        job = api.start()
        with sqlite3.connect(path) as other:
            for table in ("jobs", "notifications"):
                other.execute(f"ALTER TABLE {table} RENAME TO {table}_gone")
        other.close()
        for answer in (
            await api.http.post("/v1/watches", json={"jobs": [ref(job.id), ref(job.id, "other")]}),
            await api.http.get("/v1/jobs"),
            await api.http.get(f"/v1/jobs/default/{job.id}"),
            await api.http.get("/v1/notifications"),
            await api.http.post("/v1/notifications/1/replay"),
        ):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.json() == {"error": "the event store is unavailable"}
        with sqlite3.connect(path) as other:
            for table in ("jobs", "notifications"):
                other.execute(f"ALTER TABLE {table}_gone RENAME TO {table}")
        other.close()
        assert len((await api.watch(ref(job.id)))["jobs"]) == 1
    assert not [record for record in caplog.records if record.exc_info]


async def test_health(api: AskedListener) -> None:
    async with httpx.AsyncClient(base_url=api.http.base_url, trust_env=False) as http:
        assert (await http.get("/healthz")).json()["status"] == "ok"
        assert (await http.get("/readyz")).json() == {"status": "ready", "faults": {}}
        for method in ("POST", "DELETE", "PUT"):
            assert (await http.request(method, "/healthz")).json() == {"error": "not found"}
        for path in ("/healthz/", "/v1", "/V1/events", "//healthz", "/webhooks"):
            answer = await http.get(f"{http.base_url}{path}")
            assert (answer.status_code, answer.json()) == (404, {"error": "not found"}), path

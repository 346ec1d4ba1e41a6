"""CloudEvents to a URL: signed, in order for each connection, whatever the target answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from standardwebhooks import Webhook

from airbyte_events._utils.times import utcnow
from airbyte_events.listener.forwarding.sender import RetryPolicy
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import Attempt, DeliveryState
from support.listener import API_TOKEN, CLIENT_SECRET, bearer, instance_of, serve_listener, settings_of
from support.notify import SIGNING_KEY, Outbox, table
from support.servers import ScriptedServer
from support.stage import Stage
from support.stored import SharedStore
from support.waiting import a_while

DELIVERED, DEAD, DUE = DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.DUE


@pytest.fixture
async def outbox(server: ScriptedServer) -> AsyncIterator[Outbox]:
    async with MemoryStore() as store:
        yield Outbox(server, store, [table(url=f"{server.url}/events")])


@pytest.mark.anyio
class TestOrder:
    async def test_one_that_fails_holds_up_its_connection_alone(self, outbox: Outbox) -> None:
        outbox.server.on("POST /events", outbox.server.reply(500), outbox.server.reply())
        outbox.policy = RetryPolicy(timeout=5, base=0.05)
        for connection, id_ in (("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")):
            await outbox.put(connection, id_)
        async with outbox.sending():
            delivered = await outbox.until(DELIVERED, 4)
        assert outbox.sent == ["a1", "b1", "a1", "a2", "a3"]
        assert {each.notification.job_id: each.attempts for each in delivered} == {1: 2, 2: 1, 3: 1, 4: 1}

    async def test_the_next_process_keeps_it(self, outbox: Outbox) -> None:
        outbox.server.on("POST /events", outbox.server.reply(500, headers={"Retry-After": "1"}), outbox.server.reply())
        await outbox.put("a", "a1")
        async with outbox.sending():
            with anyio.fail_after(30):
                while not (await outbox.store.deliveries())[0].attempts:
                    await a_while()
        for id_ in ("a2", "b1"):
            await outbox.put(id_[0], id_)
        async with outbox.sending():
            await outbox.until(DELIVERED, 3)
        assert outbox.sent == ["a1", "b1", "a1", "a2"]

    async def test_one_that_is_given_up_frees_the_others(self, outbox: Outbox) -> None:
        outbox.server.on("POST /events", outbox.server.reply(500), outbox.server.reply(400), outbox.server.reply())
        for id_ in ("a1", "a2"):
            await outbox.put("a", id_)
        async with outbox.sending():
            await outbox.until(DELIVERED, 1)
        assert outbox.sent == ["a1", "a1", "a2"]

    async def test_one_that_is_gone_frees_them_too(self, outbox: Outbox) -> None:
        outbox.server.on("POST /events", outbox.server.reply(500), outbox.server.reply())
        outbox.policy = RetryPolicy(timeout=5, base=0.2)
        await outbox.put("a", "a1")
        async with outbox.sending():
            with anyio.fail_after(30):
                while not (found := await outbox.store.deliveries())[0].attempts:
                    await a_while()
            await outbox.store.attempted([Attempt(delivery=found[0].id, state=DEAD, due_at=utcnow())])
            await outbox.put("a", "a2")
            await outbox.until(DELIVERED, 1)
        assert outbox.sent == ["a1", "a2"]


@pytest.mark.anyio
class TestTargets:
    async def test_the_signature_is_that_of_standard_webhooks_at_each_attempt(self, outbox: Outbox) -> None:
        outbox.server.on("POST /events", outbox.server.reply(503), outbox.server.reply())
        await outbox.put("a", "5f3a9c1e-42")
        async with outbox.sending():
            await outbox.until(DELIVERED, 1)
        for request in outbox.server.requests:
            assert request.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
            assert request.headers["webhook-id"] == "5f3a9c1e-42"
            Webhook(SIGNING_KEY).verify(request.body, request.headers)
        assert len(outbox.server.requests) == 2

    async def test_a_redirect_is_not_followed(self, outbox: Outbox) -> None:
        outbox.server.on("POST /events", outbox.server.reply(307, headers={"Location": "/elsewhere"}))
        await outbox.put("a", "a1")
        async with outbox.sending():
            (dead,) = await outbox.until(DEAD, 1)
        assert dead.fault == "it responded 307, a redirect"
        assert [request.path for request in outbox.server.requests] == ["/events"]

    async def test_one_that_hangs_holds_up_no_other(self, outbox: Outbox) -> None:
        outbox.server.on("POST /hangs", outbox.server.hang())
        outbox.server.on("POST /events", outbox.server.reply())
        outbox.policy = RetryPolicy(timeout=3600)
        outbox.tables = [table("hangs", url=f"{outbox.server.url}/hangs"), *outbox.tables]
        for number in range(30):
            await outbox.put(str(number), str(number))
        async with outbox.sending():
            await outbox.until(DELIVERED, 30)
        assert outbox.server.count("POST /hangs") == 1

    @pytest.mark.parametrize("status", [429, 500])
    async def test_hours_of_faults_lose_nothing_and_send_little(self, outbox: Outbox, status: int) -> None:
        outbox.server.on("POST /events", *[outbox.server.reply(status)] * 5, outbox.server.reply())
        for number in range(20):
            await outbox.put(str(number % 4), str(number))
        async with outbox.sending():
            await outbox.until(DELIVERED, 20)
        assert len(outbox.server.requests) == 25
        for connection in range(4):
            order = [int(id_) for id_ in outbox.sent if int(id_) % 4 == connection]
            assert sorted(order) == order


class TestWholeListener:
    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        """uvicorn's."""
        return "asyncio"

    async def test_what_airbyte_never_announces_is_announced(self, stage: Stage, server: ScriptedServer) -> None:
        server.on("POST /events", server.reply())
        polls: dict[str, Any] = dict.fromkeys(("poll_interval", "poll_interval_proven", "poll_interval_idle"), 0.1)
        async with stage.listener(notify=(table(url=f"{server.url}/events"),), **polls) as url:
            jobs = [stage.start(job_type=job_type)[0] for job_type in ("sync", "refresh", "reset")]
            cancelled = stage.start()
            await stage.http.post(
                f"{url}/v1/watches",
                json={"jobs": [{"instance": "default", "job_id": job.id} for job in [*jobs, *cancelled]]},
                headers=bearer(API_TOKEN),
            )
            stage.end(jobs, "failed")
            stage.end(cancelled, "cancelled")
            await stage.until(lambda: len(server.requests) == 4)
            counted = 'delivery_attempts_total{airbyte="default",result="delivered",target="notify/events"} 4.0'
            with anyio.fail_after(30):
                while counted not in (await stage.http.get(f"{url}/metrics")).text:
                    await a_while()
        events = [request.json() for request in server.requests]
        assert {(each["data"]["job_id"], each["type"]) for each in events} == {
            *((job.id, "io.airbyte.job.failed") for job in jobs),
            (cancelled[0].id, "io.airbyte.job.cancelled"),
        }
        assert all(each["specversion"] == "1.0" and each["source"].startswith(stage.sim.url) for each in events)

    async def test_one_listener_of_two_announces_and_the_other_takes_over(
        self, stage: Stage, server: ScriptedServer
    ) -> None:
        server.on("POST /events", server.reply())
        instance = instance_of(stage.sim.url, secret=CLIENT_SECRET)
        settings = settings_of(instance, notify=(table(url=f"{server.url}/events"),))
        async with (
            SharedStore() as store,
            serve_listener(settings, store=store) as first,
            serve_listener(settings, store=store) as second,
        ):
            stage.sim.workspace.set_webhook(first.webhooks)
            await stage.until(lambda: bool(first.listener.election.held or second.listener.election.held))
            jobs = stage.start(6)
            stage.end(jobs[:5], "failed")
            # A leader that ends before it has stored a response sends again.
            await Outbox(server, store).until(DELIVERED, 5)
            leader, other = (first, second) if first.listener.election.held else (second, first)
            leader.listener.drain()
            stage.sim.workspace.set_webhook(other.webhooks)
            stage.end(jobs[5:], "failed")
            await stage.until(lambda: len(server.requests) == 6)
        assert sorted(request.json()["data"]["job_id"] for request in server.requests) == [job.id for job in jobs]

    async def test_secrets_are_not_in_the_api(self, stage: Stage, server: ScriptedServer) -> None:
        server.on("POST /canarysecret", server.reply(404), server.reply())
        token = bearer(API_TOKEN)
        async with stage.listener(notify=(table(url=f"{server.url}/canarysecret"),)) as url:
            stage.end(stage.start(), "failed")
            with anyio.fail_after(30):
                while not (found := (await stage.http.get(f"{url}/v1/deliveries?state=dead", headers=token)).json())[
                    "deliveries"
                ]:
                    await a_while()
            (dead,) = found["deliveries"]
            counted = 'dead_letters_total{airbyte="default",target="notify/events"} 1.0'
            with anyio.fail_after(30):
                while counted not in (await stage.http.get(f"{url}/metrics")).text:
                    await a_while()
            assert dead["target"] == {"name": "notify/events", "url": f"{server.url}/…"}
            assert dead["notification"]["kind"] == "completion"
            again = await stage.http.post(f"{url}/v1/deliveries/{dead['id']}/retry", headers=token)
            assert again.status_code == 202
            await stage.until(lambda: len(server.requests) == 2)
            inbox = (await stage.http.get(f"{url}/v1/notifications", headers=token)).json()["notifications"]
            assert [each["kind"] for each in inbox] == ["failure"]
        first, second = server.requests
        assert first.body == second.body
        assert SIGNING_KEY not in json.dumps(found)

"""Forwarding by a whole listener: what of what comes is forwarded, how its answers and its API are with it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from pydantic import SecretStr

from airbyte_events.listener.assembly import assemble
from airbyte_events.listener.settings import InstanceSettings
from airbyte_events.web.server import serving
from support.command import command
from support.events import webhook_body
from support.listener import API_TOKEN, CLIENT_SECRET, WEBHOOK_TOKEN, bearer, instance_of, settings_of
from support.loops import anyio_backend as anyio_backend
from support.process import environ_of
from support.servers import ScriptedServer
from support.stage import Stage
from support.stored import SharedStore
from support.waiting import a_moment

pytestmark = pytest.mark.anyio

SECRET = "canarythatisasecret"
TEST = b'{"text": "Hello World! This is a test from Airbyte to try slack notification settings for sync successes."}'


@dataclass
class ForwardingListener:
    """A listener that forwards to the test's server.

    :param url: the listener's.
    """

    server: ScriptedServer
    http: httpx.AsyncClient
    url: str
    webhooks: str
    token: str

    async def post(self, body: bytes, **headers: str) -> int:
        with anyio.fail_after(30):
            return (await self.http.post(self.webhooks, content=body, headers=headers)).status_code

    async def api(self, path: str, *, method: str = "GET") -> tuple[int, Any]:
        headers = bearer(self.token)
        answer = await self.http.request(method, f"{self.url}/v1/{path}", headers=headers)
        assert SECRET not in answer.text
        return answer.status_code, answer.json()

    async def deliveries(self, query: str = "") -> list[dict[str, Any]]:
        status, answer = await self.api(f"deliveries{query}")
        assert status == 200
        found: list[dict[str, Any]] = answer["deliveries"]
        return found

    async def until(self, state: str, count: int = 1) -> list[dict[str, Any]]:
        with anyio.fail_after(30):
            while len(found := await self.deliveries(f"?state={state}")) < count:
                await a_moment()
        return found

    def came(self, path: str) -> list[bytes]:
        return [request.body for request in self.server.requests if request.path == path]


def forwarding_to(stage: Stage, *urls: str) -> InstanceSettings:
    return instance_of(stage.sim.url, secret=CLIENT_SECRET, forward_urls=tuple(map(SecretStr, urls)))


@asynccontextmanager
async def forwarding(stage: Stage, server: ScriptedServer, *urls: str) -> AsyncIterator[ForwardingListener]:
    instance = forwarding_to(stage, *urls)
    async with stage.listener(instances={"default": instance}, webhooks=False) as url:
        yield ForwardingListener(server, stage.http, url, f"{url}/webhooks/default/{WEBHOOK_TOKEN}", API_TOKEN)


class TestWhat:
    async def test_by_kind(self, stage: Stage, server: ScriptedServer) -> None:
        for path in ("/all", "/failures"):
            server.on(f"POST {path}", server.reply())
        async with forwarding(stage, server, f"{server.url}/all", f"failure={server.url}/failures") as forwarder:
            success, failure = webhook_body(7), webhook_body(8, success=False)
            queued = webhook_body(9, success=False, title="Sync queued", finishedAt=None)
            unknown = b'{"text": "something new"}'
            for body in (success, failure, queued, unknown, TEST):
                assert await forwarder.post(body) in (200, 202)
            await forwarder.until("delivered", 9)
            assert forwarder.came("/all") == [success, failure, queued, unknown, TEST]
            assert forwarder.came("/failures") == [failure, queued, unknown, TEST]

    async def test_what_is_not(self, stage: Stage, server: ScriptedServer) -> None:
        server.on("POST /all", server.reply())
        body = webhook_body(7)
        async with forwarding(stage, server, f"{server.url}/all") as forwarder:
            assert await forwarder.post(b"garbage") == 400
            assert await forwarder.post(b"") == 400
            assert await forwarder.post(b'{"spam": ["eggs"]}') == 200
            assert await forwarder.post(webhook_body(6), **{"Airbyte-Events-Forwarded": "1"}) == 202
            for expected in (202, 200, 200):
                assert await forwarder.post(body) == expected
            await forwarder.until("delivered")
            assert forwarder.came("/all") == [body]
            assert len(await forwarder.deliveries()) == 1

    @pytest.mark.parametrize("host", ["127.0.0.1:8484", "events.example.com"])
    async def test_not_to_ourselves(self, tmp_path: Path, host: str) -> None:
        token = f"{SECRET}-and-a-token"
        ours = {
            "AIRBYTE_URL": "http://127.0.0.1:9",
            "STORE": f"sqlite:///{tmp_path}/events.db",
            "WEBHOOK_TOKENS": token,
            "FORWARD_URLS": f"failure=http://{host}/webhooks/default/{token}",
            "PORT": "0",
        }
        serve = [*command(), "serve"]
        with anyio.fail_after(30):
            done = await anyio.run_process(serve, env=environ_of(**ours), check=False)
        assert (done.returncode, done.stdout) == (2, b"")
        *_, line = done.stderr.decode().splitlines()
        assert line.startswith(f"airbyte-events: AIRBYTE_EVENTS_FORWARD_URLS: http://{host}/… with a webhook token")
        assert SECRET not in done.stderr.decode()


class TestAnswers:
    async def test_airbyte_does_not_wait_for_a_target_that_hangs(self, stage: Stage, server: ScriptedServer) -> None:
        server.on("POST /hangs", server.hang())
        server.on("POST /works", server.reply())
        async with forwarding(stage, server, f"{server.url}/hangs", f"{server.url}/works") as forwarder:
            for job_id in range(1, 21):
                assert await forwarder.post(webhook_body(job_id)) == 202
            await forwarder.until("delivered", 20)
            assert len(forwarder.came("/hangs")) == 1
            due = await forwarder.deliveries("?state=due")
            assert [each["attempts"] for each in due] == [0] * 20

    async def test_airbyte_has_its_answer_before_anything_is_sent(self, stage: Stage, server: ScriptedServer) -> None:
        answered = anyio.Event()
        server.on("POST /x", server.held(answered, server.reply()))
        async with forwarding(stage, server, f"{server.url}/x") as forwarder:
            assert await forwarder.post(webhook_body(1)) == 202
            answered.set()
            await forwarder.until("delivered")


class TestSeveral:
    async def test_one_listener_of_two_forwards_and_the_other_takes_over(
        self, stage: Stage, server: ScriptedServer
    ) -> None:
        server.on("POST /x", server.reply())
        store = SharedStore()
        settings = settings_of(forwarding_to(stage, f"{server.url}/x"))
        token = WEBHOOK_TOKEN
        async with (
            store,
            assemble(settings, store=store) as first,
            serving(first.app) as first_url,
            assemble(settings, store=store) as second,
            serving(second.app) as second_url,
        ):
            one, two = (
                ForwardingListener(server, stage.http, url, f"{url}/webhooks/default/{token}", API_TOKEN)
                for url in (first_url, second_url)
            )
            bodies = [webhook_body(job_id) for job_id in range(1, 12)]
            for number, body in enumerate(bodies[:10]):
                assert await (one, two)[number % 2].post(body) == 202
            await one.until("delivered", 10)
            assert await two.deliveries() == await one.deliveries()
            holder = first if first.election.held else second
            holder.drain()
            assert await (two if holder is first else one).post(bodies[10]) == 202
            await two.until("delivered", 11)
            first.bus.close()
            second.bus.close()
        assert sorted(server.requests[n].body for n in range(11)) == sorted(bodies)
        assert len(server.requests) == 11


class TestDeadLetters:
    async def test_are_listed_and_sent_again(self, stage: Stage, server: ScriptedServer) -> None:
        path = f"/services/{SECRET}"
        server.on(f"POST {path}", server.reply(404, body=b"no_service"), server.reply())
        async with forwarding(stage, server, server.url + path) as forwarder:
            body = webhook_body(1, success=False)
            await forwarder.post(body)
            (dead,) = await forwarder.until("dead")
            notification = (await forwarder.api("notifications"))[1]["notifications"][0]
            assert dead.pop("due_at").endswith("Z")
            assert len(dead["target"].pop("name")) == 12
            assert dead == {
                "id": dead["id"],
                "notification": {**dead["notification"], "id": notification["id"], "kind": "failure", "job_id": 1},
                "target": {"url": f"{server.url}/…"},
                "state": "dead",
                "attempts": 1,
                "fault": "it responded 404 (no_service)",
            }
            status, answer = await forwarder.api(f"deliveries/{dead['id']}/retry", method="POST")
            assert (status, answer) == (202, {"delivery": dead["id"]})
            (delivered,) = await forwarder.until("delivered")
            assert (delivered["id"], delivered["fault"]) == (dead["id"], None)
            assert forwarder.came(path) == [body] * 2
            status, answer = await forwarder.api(f"deliveries/{dead['id']}/retry", method="POST")
            assert (status, answer) == (409, {"error": f"delivery {dead['id']} is delivered, not dead"})

    @pytest.mark.parametrize("id_", ["999", "0", "x", "-1", str(2**63), "9" * 40])
    async def test_of_no_delivery_is_404(self, stage: Stage, server: ScriptedServer, id_: str) -> None:
        async with forwarding(stage, server) as forwarder:
            assert (await forwarder.api(f"deliveries/{id_}/retry", method="POST"))[0] == 404

    async def test_are_paged_and_filtered(self, stage: Stage, server: ScriptedServer) -> None:
        server.on("POST /x", server.reply())
        async with forwarding(stage, server, f"{server.url}/x") as forwarder:
            for job_id in range(1, 6):
                await forwarder.post(webhook_body(job_id))
            await forwarder.until("delivered", 5)
            seen, query = [], "limit=2"
            while True:
                _, answer = await forwarder.api(f"deliveries?{query}")
                seen += [each["notification"]["job_id"] for each in answer["deliveries"]]
                if answer["next"] is None:
                    break
                query = f"limit=2&before={answer['next']}"
            assert seen == [5, 4, 3, 2, 1]
            assert await forwarder.deliveries("?state=dead") == []
            for wrong in ("state=alive", "limit=0", "before=x", "what=ever"):
                status, answer = await forwarder.api(f"deliveries?{wrong}")
                assert status == 400
                assert json.dumps(answer)

    async def test_are_for_those_with_a_token(self, stage: Stage, server: ScriptedServer) -> None:
        async with forwarding(stage, server) as forwarder:
            assert (await forwarder.http.get(f"{forwarder.url}/v1/deliveries")).status_code == 401
            assert (await forwarder.http.post(f"{forwarder.url}/v1/deliveries/1/retry")).status_code == 401

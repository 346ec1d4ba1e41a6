"""Forwarding: what came goes on to where it went before, at least once, and no target holds up another."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import anyio
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.listener.forwarding.forwarder import NOT_CONFIGURED, Forwarder
from airbyte_events.listener.forwarding.sender import RetryPolicy
from airbyte_events.listener.forwarding.targets import Targets
from airbyte_events.store.base import EventStore
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import Delivery, DeliveryState, Outcome
from airbyte_events.store.sqlite.store import SQLiteStore
from support.servers import ScriptedServer
from support.stored import receipt_of
from support.waiting import a_moment, until

pytestmark = pytest.mark.anyio

CANARY = "canarythatisasecret"
BRISK = RetryPolicy(timeout=5, base=0.002)


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@dataclass
class Outgoing:
    """An instance's notifications, and where they go: paths of the test's server."""

    server: ScriptedServer
    store: EventStore
    targets: Targets
    dead_letters: Counter[str] = field(default_factory=Counter)
    """By target."""

    async def receive(
        self, body: bytes = b'{"text": "hello"}', *, to: Collection[str] | None = None, **since: float
    ) -> int:
        """A notification comes.

        :param to: which targets; by default all.
        :param since: how long ago, as of a ``timedelta``.
        """
        receipt = await receipt_of(
            self.store,
            body,
            job_id=None,
            outcome=Outcome.IGNORED,
            received_at=utcnow() - timedelta(**since),
            targets=list(self.targets) if to is None else to,
        )
        return receipt.id

    async def delivery(self, notification: int) -> Delivery:
        """That of a notification that went to one target."""
        (found,) = [each for each in await self.store.deliveries() if each.notification.id == notification]
        return found

    async def until(self, notification: int, state: DeliveryState, attempts: int = 1) -> Delivery:
        with anyio.fail_after(30):
            while True:
                found = await self.delivery(notification)
                if found.state is state and found.attempts >= attempts:
                    return found
                await a_moment()

    async def until_asked(self, path: str, times: int) -> None:
        await until(lambda: self.server.count(f"POST {path}") >= times)

    @asynccontextmanager
    async def forwarding(self, retry_policy: RetryPolicy = BRISK) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            dead = self.dead_letters.update
            forwarder = Forwarder(
                "default",
                self.targets,
                self.store,
                retry_policy=retry_policy,
                on_dead=lambda target, count: dead({target: count}),
            )
            tasks.start_soon(forwarder.run)
            yield
            tasks.cancel_scope.cancel()

    @property
    def bodies(self) -> list[bytes]:
        return [request.body for request in self.server.requests]


@pytest.fixture
async def outgoing(server: ScriptedServer) -> AsyncIterator[Outgoing]:
    async with MemoryStore() as store:
        yield Outgoing(server, store, Targets([f"{server.url}/{CANARY}"]))


ROUTE = f"POST /{CANARY}"


class TestSending:
    async def test_the_same_bytes_arrive(self, outgoing: Outgoing) -> None:
        outgoing.server.on(ROUTE, outgoing.server.reply(body=b"ok"))
        body = '{"text":  "fährt",\n "data": {"jobId": 7}}'.encode()
        early = await outgoing.receive(body)
        async with outgoing.forwarding():
            await outgoing.until(early, DeliveryState.DELIVERED)
            late = await outgoing.receive(b'{"text": "another"}')
            delivery = await outgoing.until(late, DeliveryState.DELIVERED)
        assert (delivery.attempts, delivery.fault) == (1, None)
        assert outgoing.bodies == [body, b'{"text": "another"}']
        headers = outgoing.server.requests[0].headers
        assert headers["content-type"] == "application/json"
        assert headers["airbyte-events-forwarded"] == "1"
        assert "cookie" not in headers

    async def test_in_the_order_in_which_they_came(self, outgoing: Outgoing) -> None:
        outgoing.server.on(ROUTE, outgoing.server.reply())
        bodies = [b'{"text": "%d"}' % number for number in range(50)]
        ids = [await outgoing.receive(body) for body in bodies]
        async with outgoing.forwarding():
            await outgoing.until(ids[-1], DeliveryState.DELIVERED)
        assert outgoing.bodies == bodies

    async def test_google_chat_gets_text_and_a_proxy_is_used(
        self, outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", outgoing.server.url)
        outgoing.server.on("POST /v1/spaces/A/messages", outgoing.server.reply())
        outgoing.targets = Targets(["http://chat.googleapis.com/v1/spaces/A/messages?key=k&token=t"])
        stored = await outgoing.receive(b'{"text": "hello", "data": {"jobId": 7}}')
        async with outgoing.forwarding():
            await outgoing.until(stored, DeliveryState.DELIVERED)
        (request,) = outgoing.server.requests
        assert request.query == {"key": ["k"], "token": ["t"]}
        assert request.headers["host"] == "chat.googleapis.com"
        assert json.loads(request.body) == {"text": "hello"}

    async def test_what_google_chat_can_not_take_is_dead(self, outgoing: Outgoing) -> None:
        outgoing.targets = Targets(["http://chat.googleapis.com/v1/spaces/A/messages"])
        stored = await outgoing.receive(b"{}")
        async with outgoing.forwarding():
            dead = await outgoing.until(stored, DeliveryState.DEAD)
        assert dead.fault == "not sent, as it has no text"

    async def test_cookies_are_not_kept(self, outgoing: Outgoing) -> None:
        outgoing.server.on(ROUTE, outgoing.server.reply(headers={"Set-Cookie": "a=b"}))
        async with outgoing.forwarding():
            for number in range(2):
                await outgoing.until(await outgoing.receive(b'{"text": "%d"}' % number), DeliveryState.DELIVERED)
        assert "cookie" not in outgoing.server.requests[1].headers

    async def test_an_endless_answer_is_not_waited_for(self, outgoing: Outgoing) -> None:
        outgoing.server.on(ROUTE, outgoing.server.drip())
        stored = await outgoing.receive()
        async with outgoing.forwarding(RetryPolicy(timeout=0.2)):
            delivery = await outgoing.until(stored, DeliveryState.DELIVERED)
        assert delivery.attempts == 1


class TestTrouble:
    @pytest.mark.parametrize("fault", [408, 425, 429, 500, 502, 503, 504, "reset", "empty", "hang", "nonsense"])
    async def test_is_sent_again(self, outgoing: Outgoing, fault: int | str) -> None:
        steps = {
            "reset": outgoing.server.reset(),
            "empty": outgoing.server.raw(b""),
            "hang": outgoing.server.hang(),
            "nonsense": outgoing.server.raw(f"/{CANARY}\r\n\r\n".encode()),
        }
        wrong = steps[fault] if isinstance(fault, str) else outgoing.server.reply(fault)
        outgoing.server.on(ROUTE, wrong, wrong, outgoing.server.reply())
        stored = await outgoing.receive()
        async with outgoing.forwarding(RetryPolicy(timeout=0.2 if fault == "hang" else 5, base=0.002)):
            delivery = await outgoing.until(stored, DeliveryState.DELIVERED)
        assert (delivery.attempts, delivery.fault) == (3, None)
        assert outgoing.bodies == [b'{"text": "hello"}'] * 3

    @pytest.mark.parametrize(
        ("status", "answer", "fault"),
        [
            (400, b"invalid_payload", "it responded 400 (invalid_payload)"),
            (404, b"no_service\n", "it responded 404 (no_service)"),
            (403, b'{"error": {"code": 403, "status": "PERMISSION_DENIED"}}', "it responded 403 (PERMISSION_DENIED)"),
            (404, f"<p>/{CANARY} was not found</p>".encode(), "it responded 404"),
            (410, CANARY.encode(), "it responded 410"),
            (413, b"x" * 1_000_000, "it responded 413"),
        ],
    )
    async def test_what_is_refused_is_dead_at_once(
        self, outgoing: Outgoing, status: int, answer: bytes, fault: str
    ) -> None:
        outgoing.server.on(ROUTE, outgoing.server.reply(status, body=answer))
        stored = await outgoing.receive()
        async with outgoing.forwarding():
            dead = await outgoing.until(stored, DeliveryState.DEAD)
        assert (dead.attempts, dead.fault) == (1, fault)
        assert len(outgoing.server.requests) == 1

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, outgoing: Outgoing, status: int) -> None:
        outgoing.server.on(ROUTE, outgoing.server.reply(status, headers={"Location": "/elsewhere"}))
        stored = await outgoing.receive()
        async with outgoing.forwarding():
            dead = await outgoing.until(stored, DeliveryState.DEAD)
        assert dead.fault == f"it responded {status}, a redirect"
        assert [request.path for request in outgoing.server.requests] == [f"/{CANARY}"]

    @pytest.mark.parametrize("form", ["seconds", "date"])
    async def test_retry_after_is_obeyed_by_all_that_goes_there(self, outgoing: Outgoing, form: str) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
        wait = {"Retry-After": "600" if form == "seconds" else date}
        outgoing.server.on(ROUTE, outgoing.server.reply(429, headers=wait))
        first = await outgoing.receive()
        async with outgoing.forwarding():
            waiting = await outgoing.until(first, DeliveryState.DUE)
            assert waiting.fault == "it responded 429"
            assert waiting.due_at - waiting.notification.received_at > timedelta(minutes=9)
            second = await outgoing.receive(b'{"text": "another"}')
            await anyio.wait_all_tasks_blocked()
            assert (await outgoing.delivery(second)).attempts == 0
        assert len(outgoing.server.requests) == 1

    @pytest.mark.parametrize("value", ["-1", "soon", "", "99999999999", "Fri, 99 Foo 2026 00:00:00 GMT"])
    async def test_retry_after_of_another_shape_is_none(self, outgoing: Outgoing, value: str) -> None:
        outgoing.server.on(ROUTE, outgoing.server.reply(429, headers={"Retry-After": value}), outgoing.server.reply())
        stored = await outgoing.receive()
        async with outgoing.forwarding():
            await outgoing.until(stored, DeliveryState.DELIVERED)

    async def test_waits_grow_up_to_a_bound(self) -> None:
        retry_policy = RetryPolicy()
        delays = [retry_policy.delay(failures, retry_policy.cap) for failures in range(1, 2000)]
        assert 1 <= delays[0] <= 2
        assert 16 <= delays[4] <= 32
        assert all(450 <= delay <= 900 for delay in delays[10:])

    async def test_after_a_day_it_is_dead_and_the_rest_with_it(self, outgoing: Outgoing) -> None:
        outgoing.server.on(ROUTE, outgoing.server.reply(500))
        old = [await outgoing.receive(b'{"text": "%d"}' % number, hours=25) for number in range(20)]
        young = await outgoing.receive(hours=23)
        async with outgoing.forwarding():
            for each in old:
                dead = await outgoing.until(each, DeliveryState.DEAD)
                assert (dead.fault or "").endswith("it responded 500")
            assert (await outgoing.until(young, DeliveryState.DUE)).state is DeliveryState.DUE
        # One that is given up is sent once in vain, not each of them.
        assert [body for body in outgoing.bodies if body != b'{"text": "hello"}'] == [b'{"text": "0"}']
        assert outgoing.dead_letters == dict.fromkeys(outgoing.targets, len(old))

    async def test_after_days_of_our_own_absence_it_is_still_sent(self, outgoing: Outgoing) -> None:
        outgoing.server.on(ROUTE, outgoing.server.reply())
        stored = await outgoing.receive(days=3)
        async with outgoing.forwarding():
            await outgoing.until(stored, DeliveryState.DELIVERED)

    async def test_one_that_a_target_fails_over_holds_up_no_other(self, outgoing: Outgoing) -> None:
        outgoing.server.on(ROUTE, outgoing.server.reply(500), outgoing.server.reply())
        poison = await outgoing.receive(b'{"text": "poison"}')
        other = await outgoing.receive(b'{"text": "other"}')
        async with outgoing.forwarding(RetryPolicy(base=0.05)):
            await outgoing.until(other, DeliveryState.DELIVERED)
            await outgoing.until(poison, DeliveryState.DELIVERED, attempts=2)
        assert outgoing.bodies[0] == b'{"text": "poison"}'
        assert sorted(outgoing.bodies[1:]) == [b'{"text": "other"}', b'{"text": "poison"}']

    async def test_a_target_that_hangs_holds_up_no_other(self, outgoing: Outgoing) -> None:
        outgoing.server.on("POST /hangs", outgoing.server.hang())
        outgoing.server.on("POST /works", outgoing.server.reply())
        outgoing.targets = Targets([f"{outgoing.server.url}/hangs", f"{outgoing.server.url}/works"])
        hanging, working = outgoing.targets
        for number in range(150):
            await outgoing.receive(b'{"text": "%d"}' % number, to=[hanging])
        async with outgoing.forwarding(RetryPolicy(timeout=3600)):
            await outgoing.until_asked("/hangs", 1)
            for number in range(150, 160):
                await outgoing.until(
                    await outgoing.receive(b'{"text": "%d"}' % number, to=[working]), DeliveryState.DELIVERED
                )
        assert outgoing.server.count("POST /hangs") == 1
        came = [request.body for request in outgoing.server.requests if request.path == "/works"]
        assert came == [b'{"text": "%d"}' % number for number in range(150, 160)]


class TestTargets:
    async def test_one_that_is_no_longer_configured_is_given_up(self, outgoing: Outgoing) -> None:
        """However many there are, another target gets none of them."""
        outgoing.server.on(ROUTE, outgoing.server.reply())
        stored = [await outgoing.receive(to=["0123456789ab"], minutes=11) for _ in range(50)]
        async with outgoing.forwarding():
            dead = [await outgoing.until(each, DeliveryState.DEAD) for each in stored]
        assert {each.fault for each in dead} == {NOT_CONFIGURED}
        assert outgoing.bodies == []

    async def test_with_no_target_at_all_too(self, outgoing: Outgoing) -> None:
        stored = await outgoing.receive(minutes=11)
        outgoing.targets = Targets()
        async with outgoing.forwarding():
            await outgoing.until(stored, DeliveryState.DEAD)

    async def test_what_a_listener_with_newer_settings_took_is_left_to_it(self, outgoing: Outgoing) -> None:
        new = outgoing.targets
        outgoing.server.on(ROUTE, outgoing.server.reply())
        stored = await outgoing.receive(to=list(new), minutes=9)
        outgoing.targets = Targets()
        async with outgoing.forwarding():
            waiting = await outgoing.until(stored, DeliveryState.DUE)
            assert waiting.fault == NOT_CONFIGURED
            assert waiting.due_at - utcnow() < timedelta(minutes=1)

    async def test_others_instances_are_not_ours(self, outgoing: Outgoing) -> None:
        outgoing.server.on(ROUTE, outgoing.server.reply())
        await receipt_of(
            outgoing.store,
            b"{}",
            instance="other",
            job_id=None,
            outcome=Outcome.IGNORED,
            received_at=utcnow(),
            targets=list(outgoing.targets),
        )
        ours = await outgoing.receive()
        async with outgoing.forwarding():
            await outgoing.until(ours, DeliveryState.DELIVERED)
            await anyio.wait_all_tasks_blocked()
        assert len(outgoing.server.requests) == 1


class TestSurvival:
    async def test_a_restart_keeps_what_is_due(self, outgoing: Outgoing, tmp_path: Path) -> None:
        outgoing.server.on(ROUTE, outgoing.server.reply())
        async with SQLiteStore(tmp_path / "events.db") as outgoing.store:
            ids = [await outgoing.receive(b'{"text": "%d"}' % number) for number in range(10)]
        async with SQLiteStore(tmp_path / "events.db") as outgoing.store, outgoing.forwarding():
            for each in ids:
                await outgoing.until(each, DeliveryState.DELIVERED)
        async with SQLiteStore(tmp_path / "events.db") as outgoing.store, outgoing.forwarding():
            await anyio.wait_all_tasks_blocked()
        assert len(outgoing.bodies) == 10

    async def test_what_was_under_way_at_the_end_is_sent_again(self, outgoing: Outgoing) -> None:
        outgoing.server.on(ROUTE, outgoing.server.hang(), outgoing.server.reply())
        stored = await outgoing.receive()
        async with outgoing.forwarding():
            await outgoing.until_asked(f"/{CANARY}", 1)
        assert (await outgoing.delivery(stored)).state is DeliveryState.DUE
        async with outgoing.forwarding():
            await outgoing.until(stored, DeliveryState.DELIVERED)
        assert len(outgoing.bodies) == 2

    async def test_i7_the_url_is_told_nowhere(self, outgoing: Outgoing, caplog: pytest.LogCaptureFixture) -> None:
        # Whatever other code of this process has made of it.
        caplog.set_level(logging.DEBUG)
        caplog.set_level(logging.DEBUG, "httpx")
        page = f"<h1>http://x/{CANARY}</h1>".encode()
        moved = {"Location": f"http://x/{CANARY}"}
        for faulty in (500, 429, 302, 404, "reset", "gone"):
            answer = outgoing.server.reset() if faulty == "reset" else None
            if isinstance(faulty, int):
                answer = outgoing.server.reply(faulty, body=page, headers=moved if faulty == 302 else None)
            outgoing.server.on(ROUTE, answer or outgoing.server.reply())
            if faulty == "gone":
                outgoing.targets = Targets([f"http://127.0.0.1:9/{CANARY}"])
            stored = await outgoing.receive(json.dumps({"text": str(faulty)}).encode())
            async with outgoing.forwarding():
                with anyio.fail_after(30):
                    while (told := await outgoing.delivery(stored)).fault is None:
                        await anyio.lowlevel.checkpoint()
            assert CANARY not in (told.fault or "")
        assert CANARY not in repr(outgoing.targets) + repr(list(outgoing.targets.values()))
        ours = [record for record in caplog.records if not record.name.startswith("httpcore")]
        assert any(record.name == "httpx" for record in ours)
        assert any("delivery given up" in record.getMessage() for record in ours)
        assert not [record for record in ours if CANARY in record.getMessage()]

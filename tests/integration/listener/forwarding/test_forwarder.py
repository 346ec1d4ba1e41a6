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
class Rig:
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
async def rig(server: ScriptedServer) -> AsyncIterator[Rig]:
    async with MemoryStore() as store:
        yield Rig(server, store, Targets([f"{server.url}/{CANARY}"]))


ROUTE = f"POST /{CANARY}"


class TestSending:
    async def test_the_same_bytes_arrive(self, rig: Rig) -> None:
        rig.server.on(ROUTE, rig.server.reply(body=b"ok"))
        body = '{"text":  "fährt",\n "data": {"jobId": 7}}'.encode()
        early = await rig.receive(body)
        async with rig.forwarding():
            await rig.until(early, DeliveryState.DELIVERED)
            late = await rig.receive(b'{"text": "another"}')
            delivery = await rig.until(late, DeliveryState.DELIVERED)
        assert (delivery.attempts, delivery.fault) == (1, None)
        assert rig.bodies == [body, b'{"text": "another"}']
        headers = rig.server.requests[0].headers
        assert headers["content-type"] == "application/json"
        assert headers["airbyte-events-forwarded"] == "1"
        assert "cookie" not in headers

    async def test_in_the_order_in_which_they_came(self, rig: Rig) -> None:
        rig.server.on(ROUTE, rig.server.reply())
        bodies = [b'{"text": "%d"}' % number for number in range(50)]
        ids = [await rig.receive(body) for body in bodies]
        async with rig.forwarding():
            await rig.until(ids[-1], DeliveryState.DELIVERED)
        assert rig.bodies == bodies

    async def test_google_chat_gets_text_and_a_proxy_is_used(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", rig.server.url)
        rig.server.on("POST /v1/spaces/A/messages", rig.server.reply())
        rig.targets = Targets(["http://chat.googleapis.com/v1/spaces/A/messages?key=k&token=t"])
        stored = await rig.receive(b'{"text": "hello", "data": {"jobId": 7}}')
        async with rig.forwarding():
            await rig.until(stored, DeliveryState.DELIVERED)
        (request,) = rig.server.requests
        assert request.query == {"key": ["k"], "token": ["t"]}
        assert request.headers["host"] == "chat.googleapis.com"
        assert json.loads(request.body) == {"text": "hello"}

    async def test_what_google_chat_can_not_take_is_dead(self, rig: Rig) -> None:
        rig.targets = Targets(["http://chat.googleapis.com/v1/spaces/A/messages"])
        stored = await rig.receive(b"{}")
        async with rig.forwarding():
            dead = await rig.until(stored, DeliveryState.DEAD)
        assert dead.fault == "not sent, as it has no text"

    async def test_cookies_are_not_kept(self, rig: Rig) -> None:
        rig.server.on(ROUTE, rig.server.reply(headers={"Set-Cookie": "a=b"}))
        async with rig.forwarding():
            for number in range(2):
                await rig.until(await rig.receive(b'{"text": "%d"}' % number), DeliveryState.DELIVERED)
        assert "cookie" not in rig.server.requests[1].headers

    async def test_an_endless_answer_is_not_waited_for(self, rig: Rig) -> None:
        rig.server.on(ROUTE, rig.server.drip())
        stored = await rig.receive()
        async with rig.forwarding(RetryPolicy(timeout=0.2)):
            delivery = await rig.until(stored, DeliveryState.DELIVERED)
        assert delivery.attempts == 1


class TestTrouble:
    @pytest.mark.parametrize("fault", [408, 425, 429, 500, 502, 503, 504, "reset", "empty", "hang", "nonsense"])
    async def test_is_sent_again(self, rig: Rig, fault: int | str) -> None:
        steps = {
            "reset": rig.server.reset(),
            "empty": rig.server.raw(b""),
            "hang": rig.server.hang(),
            "nonsense": rig.server.raw(f"/{CANARY}\r\n\r\n".encode()),
        }
        wrong = steps[fault] if isinstance(fault, str) else rig.server.reply(fault)
        rig.server.on(ROUTE, wrong, wrong, rig.server.reply())
        stored = await rig.receive()
        async with rig.forwarding(RetryPolicy(timeout=0.2 if fault == "hang" else 5, base=0.002)):
            delivery = await rig.until(stored, DeliveryState.DELIVERED)
        assert (delivery.attempts, delivery.fault) == (3, None)
        assert rig.bodies == [b'{"text": "hello"}'] * 3

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
    async def test_what_is_refused_is_dead_at_once(self, rig: Rig, status: int, answer: bytes, fault: str) -> None:
        rig.server.on(ROUTE, rig.server.reply(status, body=answer))
        stored = await rig.receive()
        async with rig.forwarding():
            dead = await rig.until(stored, DeliveryState.DEAD)
        assert (dead.attempts, dead.fault) == (1, fault)
        assert len(rig.server.requests) == 1

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, rig: Rig, status: int) -> None:
        rig.server.on(ROUTE, rig.server.reply(status, headers={"Location": "/elsewhere"}))
        stored = await rig.receive()
        async with rig.forwarding():
            dead = await rig.until(stored, DeliveryState.DEAD)
        assert dead.fault == f"it responded {status}, a redirect"
        assert [request.path for request in rig.server.requests] == [f"/{CANARY}"]

    @pytest.mark.parametrize("form", ["seconds", "date"])
    async def test_retry_after_is_obeyed_by_all_that_goes_there(self, rig: Rig, form: str) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
        wait = {"Retry-After": "600" if form == "seconds" else date}
        rig.server.on(ROUTE, rig.server.reply(429, headers=wait))
        first = await rig.receive()
        async with rig.forwarding():
            waiting = await rig.until(first, DeliveryState.DUE)
            assert waiting.fault == "it responded 429"
            assert waiting.due_at - waiting.notification.received_at > timedelta(minutes=9)
            second = await rig.receive(b'{"text": "another"}')
            await anyio.wait_all_tasks_blocked()
            assert (await rig.delivery(second)).attempts == 0
        assert len(rig.server.requests) == 1

    @pytest.mark.parametrize("value", ["-1", "soon", "", "99999999999", "Fri, 99 Foo 2026 00:00:00 GMT"])
    async def test_retry_after_of_another_shape_is_none(self, rig: Rig, value: str) -> None:
        rig.server.on(ROUTE, rig.server.reply(429, headers={"Retry-After": value}), rig.server.reply())
        stored = await rig.receive()
        async with rig.forwarding():
            await rig.until(stored, DeliveryState.DELIVERED)

    async def test_waits_grow_up_to_a_bound(self) -> None:
        retry_policy = RetryPolicy()
        delays = [retry_policy.delay(failures, retry_policy.cap) for failures in range(1, 2000)]
        assert 1 <= delays[0] <= 2
        assert 16 <= delays[4] <= 32
        assert all(450 <= delay <= 900 for delay in delays[10:])

    async def test_after_a_day_it_is_dead_and_the_rest_with_it(self, rig: Rig) -> None:
        rig.server.on(ROUTE, rig.server.reply(500))
        old = [await rig.receive(b'{"text": "%d"}' % number, hours=25) for number in range(20)]
        young = await rig.receive(hours=23)
        async with rig.forwarding():
            for each in old:
                dead = await rig.until(each, DeliveryState.DEAD)
                assert (dead.fault or "").endswith("it responded 500")
            assert (await rig.until(young, DeliveryState.DUE)).state is DeliveryState.DUE
        # One that is given up is sent once in vain, not each of them.
        assert [body for body in rig.bodies if body != b'{"text": "hello"}'] == [b'{"text": "0"}']
        assert rig.dead_letters == dict.fromkeys(rig.targets, len(old))

    async def test_after_days_of_our_own_absence_it_is_still_sent(self, rig: Rig) -> None:
        rig.server.on(ROUTE, rig.server.reply())
        stored = await rig.receive(days=3)
        async with rig.forwarding():
            await rig.until(stored, DeliveryState.DELIVERED)

    async def test_one_that_a_target_fails_over_holds_up_no_other(self, rig: Rig) -> None:
        rig.server.on(ROUTE, rig.server.reply(500), rig.server.reply())
        poison = await rig.receive(b'{"text": "poison"}')
        other = await rig.receive(b'{"text": "other"}')
        async with rig.forwarding(RetryPolicy(base=0.05)):
            await rig.until(other, DeliveryState.DELIVERED)
            await rig.until(poison, DeliveryState.DELIVERED, attempts=2)
        assert rig.bodies[0] == b'{"text": "poison"}'
        assert sorted(rig.bodies[1:]) == [b'{"text": "other"}', b'{"text": "poison"}']

    async def test_a_target_that_hangs_holds_up_no_other(self, rig: Rig) -> None:
        rig.server.on("POST /hangs", rig.server.hang())
        rig.server.on("POST /works", rig.server.reply())
        rig.targets = Targets([f"{rig.server.url}/hangs", f"{rig.server.url}/works"])
        hanging, working = rig.targets
        for number in range(150):
            await rig.receive(b'{"text": "%d"}' % number, to=[hanging])
        async with rig.forwarding(RetryPolicy(timeout=3600)):
            await rig.until_asked("/hangs", 1)
            for number in range(150, 160):
                await rig.until(await rig.receive(b'{"text": "%d"}' % number, to=[working]), DeliveryState.DELIVERED)
        assert rig.server.count("POST /hangs") == 1
        came = [request.body for request in rig.server.requests if request.path == "/works"]
        assert came == [b'{"text": "%d"}' % number for number in range(150, 160)]


class TestTargets:
    async def test_one_that_is_no_longer_configured_is_given_up(self, rig: Rig) -> None:
        """However many there are, another target gets none of them."""
        rig.server.on(ROUTE, rig.server.reply())
        stored = [await rig.receive(to=["0123456789ab"], minutes=11) for _ in range(50)]
        async with rig.forwarding():
            dead = [await rig.until(each, DeliveryState.DEAD) for each in stored]
        assert {each.fault for each in dead} == {NOT_CONFIGURED}
        assert rig.bodies == []

    async def test_with_no_target_at_all_too(self, rig: Rig) -> None:
        stored = await rig.receive(minutes=11)
        rig.targets = Targets()
        async with rig.forwarding():
            await rig.until(stored, DeliveryState.DEAD)

    async def test_what_a_listener_with_newer_settings_took_is_left_to_it(self, rig: Rig) -> None:
        new = rig.targets
        rig.server.on(ROUTE, rig.server.reply())
        stored = await rig.receive(to=list(new), minutes=9)
        rig.targets = Targets()
        async with rig.forwarding():
            waiting = await rig.until(stored, DeliveryState.DUE)
            assert waiting.fault == NOT_CONFIGURED
            assert waiting.due_at - utcnow() < timedelta(minutes=1)

    async def test_others_instances_are_not_ours(self, rig: Rig) -> None:
        rig.server.on(ROUTE, rig.server.reply())
        await receipt_of(
            rig.store,
            b"{}",
            instance="other",
            job_id=None,
            outcome=Outcome.IGNORED,
            received_at=utcnow(),
            targets=list(rig.targets),
        )
        ours = await rig.receive()
        async with rig.forwarding():
            await rig.until(ours, DeliveryState.DELIVERED)
            await anyio.wait_all_tasks_blocked()
        assert len(rig.server.requests) == 1


class TestSurvival:
    async def test_a_restart_keeps_what_is_due(self, rig: Rig, tmp_path: Path) -> None:
        rig.server.on(ROUTE, rig.server.reply())
        async with SQLiteStore(tmp_path / "events.db") as rig.store:
            ids = [await rig.receive(b'{"text": "%d"}' % number) for number in range(10)]
        async with SQLiteStore(tmp_path / "events.db") as rig.store, rig.forwarding():
            for each in ids:
                await rig.until(each, DeliveryState.DELIVERED)
        async with SQLiteStore(tmp_path / "events.db") as rig.store, rig.forwarding():
            await anyio.wait_all_tasks_blocked()
        assert len(rig.bodies) == 10

    async def test_what_was_under_way_at_the_end_is_sent_again(self, rig: Rig) -> None:
        rig.server.on(ROUTE, rig.server.hang(), rig.server.reply())
        stored = await rig.receive()
        async with rig.forwarding():
            await rig.until_asked(f"/{CANARY}", 1)
        assert (await rig.delivery(stored)).state is DeliveryState.DUE
        async with rig.forwarding():
            await rig.until(stored, DeliveryState.DELIVERED)
        assert len(rig.bodies) == 2

    async def test_i7_the_url_is_told_nowhere(self, rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
        # Whatever other code of this process has made of it.
        caplog.set_level(logging.DEBUG)
        caplog.set_level(logging.DEBUG, "httpx")
        page = f"<h1>http://x/{CANARY}</h1>".encode()
        moved = {"Location": f"http://x/{CANARY}"}
        for faulty in (500, 429, 302, 404, "reset", "gone"):
            answer = rig.server.reset() if faulty == "reset" else None
            if isinstance(faulty, int):
                answer = rig.server.reply(faulty, body=page, headers=moved if faulty == 302 else None)
            rig.server.on(ROUTE, answer or rig.server.reply())
            if faulty == "gone":
                rig.targets = Targets([f"http://127.0.0.1:9/{CANARY}"])
            stored = await rig.receive(json.dumps({"text": str(faulty)}).encode())
            async with rig.forwarding():
                with anyio.fail_after(30):
                    while (told := await rig.delivery(stored)).fault is None:
                        await anyio.lowlevel.checkpoint()
            assert CANARY not in (told.fault or "")
        assert CANARY not in repr(rig.targets) + repr(list(rig.targets.values()))
        ours = [record for record in caplog.records if not record.name.startswith("httpcore")]
        assert any(record.name == "httpx" for record in ours)
        assert any("delivery given up" in record.getMessage() for record in ours)
        assert not [record for record in ours if CANARY in record.getMessage()]

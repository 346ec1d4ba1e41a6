"""When the API client repeats a request."""

from __future__ import annotations

import socket

import anyio
import anyio.to_thread
import pytest

from airbyte_events.errors import (
    AirbyteStatusError,
    AirbyteUnreachable,
    NotSent,
    RateLimited,
    ServerError,
)
from airbyte_events.events import JobStatus
from support.api import BASE, ENDED, JOB_PATH, JOBS, Make
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio


class TestRetrying:
    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 529])
    async def test_a_status_that_passes(self, server: ScriptedServer, client: Make, status: int) -> None:
        page = server.reply(status, body=b"<html>busy</html>", headers={"Content-Type": "text/html"})
        server.on(JOB_PATH, page, page, server.reply(200, ENDED))

        assert (await client().get_job(5)).status is JobStatus.SUCCEEDED
        assert len(server.requests) == 3

    @pytest.mark.parametrize("status", [429, 503])
    async def test_a_status_that_does_not_pass(self, server: ScriptedServer, client: Make, status: int) -> None:
        server.on(JOB_PATH, server.reply(status))

        with pytest.raises(AirbyteStatusError) as caught:
            await client(attempts=3).get_job(5)

        assert isinstance(caught.value, RateLimited if status == 429 else ServerError)
        assert caught.value.retry_after is None
        assert len(server.requests) == 3

    async def test_a_reset_a_cut_and_garbage_that_pass(self, server: ScriptedServer, client: Make) -> None:
        server.on(
            JOB_PATH,
            server.reset(),
            server.raw(b""),
            server.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
            server.raw(b"220 mail.example ESMTP\r\n"),
            server.reply(200, ENDED),
        )

        assert (await client().get_job(5)).status is JobStatus.SUCCEEDED
        assert len(server.requests) == 5

    async def test_a_truncated_body_that_stays(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"))

        with pytest.raises(AirbyteUnreachable, match="incomplete response"):
            await client(attempts=2).get_job(5)
        assert len(server.requests) == 2

    async def test_silence(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.hang(), server.reply(200, ENDED))

        with anyio.fail_after(30):
            assert (await client(timeout=0.1).get_job(5)).status is JobStatus.SUCCEEDED
        server.on(JOB_PATH, server.hang())
        with pytest.raises(AirbyteUnreachable, match=r"no response within 0\.1 s"):
            await client(timeout=0.1, attempts=2).get_job(5)

    async def test_an_answer_that_drips(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.drip())

        with anyio.fail_after(30), pytest.raises(AirbyteUnreachable, match=r"no response within 0\.2 s"):
            await client(timeout=0.2, attempts=1).get_job(5)

    async def test_nobody_there(self, client: Make) -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
            one = client(url=f"http://127.0.0.1:{port}", attempts=2)

            with pytest.raises(NotSent, match=rf"GET {BASE}/jobs/5 at 127.0.0.1:{port}: no connection"):
                await one.get_job(5)

    async def test_retry_after_is_read_in_both_forms(self, server: ScriptedServer, client: Make) -> None:
        date = {"Date": "Mon, 01 Jan 2024 02:00:00 GMT", "Retry-After": "Mon, 01 Jan 2024 02:01:30 GMT"}
        past = date | {"Retry-After": "Mon, 01 Jan 2024 01:00:00 GMT"}
        for headers, expected in (
            ({"Retry-After": "7"}, 7.0),
            (date, 90.0),
            (past, 0.0),
            ({"Retry-After": "soon"}, None),
            ({"Retry-After": "-1"}, None),
            ({"Retry-After": "9" * 50}, None),
            ({}, None),
        ):
            server.on(JOB_PATH, server.reply(429, headers=headers))
            one = client(attempts=1)
            with pytest.raises(RateLimited) as caught:
                await one.get_job(5)
            assert caught.value.retry_after == expected
            assert one.backing_off == pytest.approx(expected or 0.0, abs=1)

    async def test_retry_after_is_obeyed(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.reply(429, headers={"Retry-After": "0.3"}), server.reply(200, ENDED))
        started = anyio.current_time()

        await client().get_job(5)

        assert anyio.current_time() - started >= 0.3

    async def test_a_hundred_callers_do_not_hammer(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.reply(503))
        one = client(attempts=4)
        caught = []

        async def call() -> None:
            try:
                await one.get_job(5)
            except ServerError as exc:
                caught.append(exc)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(call)
        assert len(caught) == 100
        # All set out together; of what followed, each attempt of them all was one request.
        assert len(server.requests) <= 100 + 3

        server.requests.clear()
        caught.clear()
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(call)
        assert len(caught) == 100
        assert len(server.requests) <= 5

    async def test_a_hundred_callers_go_on_together(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.reply(503), server.reply(503), server.reply(200, ENDED))
        one = client()
        ended = []

        async def call() -> None:
            ended.append((await one.get_job(5)).status)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(call)
        assert ended == [JobStatus.SUCCEEDED] * 100
        assert one.backing_off == 0

    async def test_a_query_that_always_fails_does_not_fail_the_others(
        self, server: ScriptedServer, client: Make
    ) -> None:
        server.on(JOBS, server.reply(500))
        server.on(JOB_PATH, server.reply(200, ENDED))
        one = client()

        async def list_in_vain() -> None:
            with pytest.raises(ServerError):
                await one.list_jobs(order_by="updatedAt|ASC")

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(list_in_vain)
                    tasks.start_soon(one.get_job, 5)

    async def test_cancelling_ends_a_request_at_once(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.hang())

        with anyio.move_on_after(0.1) as scope, anyio.fail_after(30):
            await client(timeout=60).get_job(5)
        assert scope.cancelled_caught

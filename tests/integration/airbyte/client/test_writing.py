"""Jobs that the API client creates and cancels."""

from __future__ import annotations

import socket

import anyio
import anyio.to_thread
import pytest

from airbyte_events.errors import (
    AirbyteError,
    AirbyteUnreachable,
    Conflict,
    NotSent,
    ServerError,
)
from airbyte_events.events import JobStatus
from support.api import CANCEL, CREATE, ENDED, JOB_PATH, RUNNING, SECRET, TOKEN, Make, problem, token
from support.servers import ScriptedServer
from support.waiting import in_background

pytestmark = pytest.mark.anyio


class TestCreating:
    async def test_a_job_is_created(self, server: ScriptedServer, client: Make) -> None:
        server.on(CREATE, server.reply(200, RUNNING))

        job = await client().create_job("c", "clear")

        assert job.status is JobStatus.RUNNING
        assert server.requests[0].json() == {"connectionId": "c", "jobType": "clear"}

    async def test_it_may_take_longer_than_a_read(self, server: ScriptedServer, client: Make) -> None:
        release = anyio.Event()
        server.on(CREATE, server.held(release, server.reply(200, RUNNING)))
        server.on(JOB_PATH, server.hang())
        one = client(timeout=0.1, create_timeout=30, attempts=1)
        created = []

        async def create() -> None:
            created.append(await one.create_job("c"))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(create)
                with pytest.raises(AirbyteUnreachable):
                    await one.get_job(5)
                assert not created
                release.set()
        assert created[0].job_id == 5

    @pytest.mark.parametrize("fault", ["hang", "reset", "cut", "500", "502", "503", "504", "408"])
    async def test_what_may_have_been_created_is_not_created_again(
        self, server: ScriptedServer, client: Make, fault: str
    ) -> None:
        step = {
            "hang": server.hang(),
            "reset": server.reset(),
            "cut": server.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
        }.get(fault) or server.reply(int(fault))
        server.on(CREATE, step, server.reply(200, RUNNING))

        with pytest.raises(AirbyteError) as caught:
            await client(create_timeout=0.2).create_job("c")

        assert not isinstance(caught.value, NotSent)
        assert server.count(CREATE) == 1

    async def test_what_surely_was_not_created_is_created(self, server: ScriptedServer, client: Make) -> None:
        server.on(TOKEN, server.reply(200, token("t0ken-1")), server.reply(200, token("t0ken-2")))
        server.on(CREATE, server.reply(429), server.reply(401), server.reply(429), server.reply(200, RUNNING))

        assert (await client(secret=SECRET).create_job("c")).job_id == 5
        assert server.count(CREATE) == 4

    async def test_a_refused_connection_is_tried_again(self, client: Make) -> None:
        """A listener that begins to listen after the first attempt."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            statuses = []

            def on_request(route: str, status: int | None) -> None:
                statuses.append((route, status))
                listener.listen()

            def answer() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b'{"jobId":5,"status":"pending"}'
                    )

            one = client(url=f"http://127.0.0.1:{listener.getsockname()[1]}", on_request=on_request)
            async with anyio.create_task_group() as tasks:

                async def serve() -> None:
                    while not statuses:
                        await anyio.wait_all_tasks_blocked()
                    await anyio.to_thread.run_sync(answer)

                tasks.start_soon(serve)
                with anyio.fail_after(30):
                    assert (await one.create_job("c")).job_id == 5
        assert statuses == [("POST /jobs", None), ("POST /jobs", 200)]

    async def test_a_slow_one_does_not_hold_up_reads_while_backing_off(
        self, server: ScriptedServer, client: Make
    ) -> None:
        server.on(JOB_PATH, server.reply(503), server.reply(200, ENDED))
        server.on(CREATE, server.hang())
        one = client(create_timeout=60, attempts=1)
        with pytest.raises(ServerError):
            await one.get_job(5)

        async with in_background(one.create_job, "c"):
            with anyio.fail_after(30):
                while not server.count(CREATE):
                    await anyio.wait_all_tasks_blocked()
                assert (await one.get_job(5)).job_id == 5


class TestCancelling:
    async def test_an_active_job_is_cancelled(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.reply(200, RUNNING))
        server.on(CANCEL, server.reply(200, RUNNING | {"status": "cancelled"}))

        assert (await client().cancel_job(5)).status is JobStatus.CANCELLED

    @pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
    async def test_nothing_is_sent_for_a_job_that_has_ended(
        self, server: ScriptedServer, client: Make, status: str
    ) -> None:
        server.on(JOB_PATH, server.reply(200, ENDED | {"status": status}))

        assert (await client().cancel_job(5)).status == status
        assert server.count(CANCEL) == 0

    async def test_nothing_is_sent_for_a_job_that_is_not_known(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.reply(409, problem("state-conflict", "Job is not currently running")))

        with pytest.raises(Conflict):
            await client().cancel_job(5)
        assert server.count(CANCEL) == 0

    @pytest.mark.parametrize("fault", ["hang", "reset", "429", "500", "503", "409"])
    async def test_it_is_never_sent_again(self, server: ScriptedServer, client: Make, fault: str) -> None:
        step = {"hang": server.hang(), "reset": server.reset()}.get(fault) or server.reply(int(fault))
        server.on(JOB_PATH, server.reply(200, RUNNING))
        server.on(CANCEL, step, server.reply(200, RUNNING))

        with pytest.raises(AirbyteError):
            await client(create_timeout=0.2).cancel_job(5)
        assert server.count(CANCEL) == 1

    async def test_with_a_new_token_it_is(self, server: ScriptedServer, client: Make) -> None:
        server.on(TOKEN, server.reply(200, token("t0ken-1")), server.reply(200, token("t0ken-2")))
        server.on(JOB_PATH, server.reply(200, RUNNING))
        server.on(CANCEL, server.reply(401), server.reply(200, RUNNING | {"status": "cancelled"}))

        assert (await client(secret=SECRET).cancel_job(5)).status is JobStatus.CANCELLED

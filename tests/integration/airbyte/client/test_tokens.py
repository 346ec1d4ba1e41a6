"""The API client's access tokens."""

from __future__ import annotations

import html
from typing import Any
from urllib.parse import quote

import anyio
import anyio.to_thread
import pytest

from airbyte_events.airbyte import Credentials
from airbyte_events.errors import (
    AirbyteProtocolError,
    Forbidden,
    NotFound,
    SettingsError,
    Unauthorized,
)
from support.api import BASE, CREATE, ENDED, JOB_PATH, RUNNING, SECRET, TOKEN, Make, authorizations, token
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio


class TestTokens:
    async def test_one_is_fetched_and_used(self, server: ScriptedServer, client: Make) -> None:
        server.on(TOKEN, server.reply(200, token()))
        server.on(JOB_PATH, server.reply(200, ENDED))
        one = client(secret=SECRET)

        await one.get_job(5)
        await one.get_job(5)

        assert authorizations(server) == ["Bearer t0ken-1"] * 2
        assert server.count(TOKEN) == 1
        assert server.requests[0].json() == {
            "client_id": "id",
            "client_secret": SECRET,
            "grant_type": "client_credentials",
        }
        assert "authorization" not in server.requests[0].headers

    async def test_one_fetch_serves_all_who_wait(self, server: ScriptedServer, client: Make) -> None:
        server.on(TOKEN, server.reply(200, token()))
        server.on(JOB_PATH, server.reply(200, ENDED))
        one = client(secret=SECRET)

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(one.get_job, 5)

        assert server.count(TOKEN) == 1
        assert server.count(JOB_PATH) == 50

    async def test_a_401_renews_it_once(self, server: ScriptedServer, client: Make) -> None:
        server.on(TOKEN, server.reply(200, token("t0ken-1")), server.reply(200, token("t0ken-2")))
        server.on(JOB_PATH, server.reply(401, {"message": "Unauthorized"}), server.reply(200, ENDED))

        assert (await client(secret=SECRET).get_job(5)).job_id == 5
        assert authorizations(server) == ["Bearer t0ken-1", "Bearer t0ken-2"]

    async def test_a_second_401_is_final(self, server: ScriptedServer, client: Make) -> None:
        server.on(TOKEN, server.reply(200, token("t0ken-1")), server.reply(200, token("t0ken-2")))
        server.on(JOB_PATH, server.reply(401, {"message": "Unauthorized", "_links": {}, "_embedded": {}}))

        with pytest.raises(Unauthorized):
            await client(secret=SECRET).get_job(5)
        assert server.count(TOKEN) == 2
        assert server.count(JOB_PATH) == 2

    async def test_one_that_expires_during_a_back_off_is_renewed_again(
        self, server: ScriptedServer, client: Make
    ) -> None:
        server.on(TOKEN, *(server.reply(200, token(f"t0ken-{n}")) for n in range(3)))
        server.on(JOB_PATH, *(server.reply(status) for status in (401, 503, 401)), server.reply(200, ENDED))

        assert (await client(secret=SECRET).get_job(5)).job_id == 5
        assert server.count(TOKEN) == 3

    async def test_many_401s_at_once_renew_it_once(self, server: ScriptedServer, client: Make) -> None:
        server.on(TOKEN, server.reply(200, token("t0ken-1")), server.reply(200, token("t0ken-2")))
        release = anyio.Event()
        server.on(JOB_PATH, *[server.held(release, server.reply(401))] * 20, *[server.reply(200, ENDED)] * 20)
        one = client(secret=SECRET)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(one.get_job, 5)
                while server.count(JOB_PATH) < 20:
                    await anyio.wait_all_tasks_blocked()
                release.set()

        assert server.count(TOKEN) == 2
        assert set(authorizations(server)) == {"Bearer t0ken-1", "Bearer t0ken-2"}

    @pytest.mark.parametrize("expires_in", [0.2, 0.1])
    async def test_one_is_renewed_before_it_expires(
        self, server: ScriptedServer, client: Make, expires_in: float
    ) -> None:
        server.on(TOKEN, server.reply(200, token("t0ken-1", expires_in)), server.reply(200, token("t0ken-2")))
        server.on(JOB_PATH, server.reply(200, ENDED))
        one = client(secret=SECRET)

        with anyio.fail_after(30):
            await one.get_job(5)
            while server.count(TOKEN) < 2:
                await one.get_job(5)
        assert authorizations(server)[-1] == "Bearer t0ken-2"

    @pytest.mark.parametrize("expires_in", [None, 0, -5, "soon", True, 10**30, {}])
    async def test_an_expiry_of_no_sense_is_ignored(
        self, server: ScriptedServer, client: Make, expires_in: Any
    ) -> None:
        server.on(TOKEN, server.reply(200, token(expires_in=expires_in)))
        server.on(JOB_PATH, server.reply(200, ENDED))
        one = client(secret=SECRET)

        for _ in range(3):
            await one.get_job(5)
        assert server.count(TOKEN) == 1

    async def test_a_wrong_secret_is_final_and_named(self, server: ScriptedServer, client: Make) -> None:
        server.on(TOKEN, server.reply(401, {"errorId": "e3b0c442"}))

        with pytest.raises(Unauthorized, match="rejects this client id and secret"):
            await client(secret=SECRET).get_job(5)
        assert [r.path for r in server.requests] == [f"{BASE}/applications/token"]

    @pytest.mark.parametrize(
        ("status", "answer", "words"),
        [
            # Simple authentication, which abctl installs.
            (
                400,
                {"message": "Bad Request", "_embedded": {"errors": [{"message": "Invalid client id or token"}]}},
                "Invalid client id or token",
            ),
            (
                401,
                {"error": "invalid_client", "error_description": "Invalid client credentials"},
                "Invalid client credentials",
            ),
            (400, {"error": "unsupported_grant_type"}, "unsupported_grant_type"),
        ],
    )
    async def test_a_refusal_of_the_secret_is_final_in_the_words_of_who_refused_it(
        self, server: ScriptedServer, client: Make, status: int, answer: Any, words: str
    ) -> None:
        server.on(TOKEN, server.reply(status, answer))

        with pytest.raises(Unauthorized) as caught:
            await client(secret=SECRET).get_job(5)
        assert f"{status}: {words} (Airbyte rejects this client id and secret)" in str(caught.value)
        assert (caught.value.status_code, caught.value.type) == (status, None)
        assert len(server.requests) == 1

    async def test_a_web_page_in_the_token_s_place_is_not_called_airbyte_s_refusal(
        self, server: ScriptedServer, client: Make
    ) -> None:
        page = server.reply(403, body=b"<html><title>Denied</title>", headers={"Content-Type": "text/html"})
        server.on(TOKEN, page)

        with pytest.raises(Forbidden) as caught:
            await client(secret=SECRET).get_job(5)
        assert str(caught.value).endswith("403: Forbidden (the response is a web page titled «Denied»)")
        assert caught.value.page

    async def test_a_secret_that_is_repeated_in_any_spelling_is_hidden(
        self, server: ScriptedServer, client: Make
    ) -> None:
        secret = "s/cr&t word"
        for said in (secret, quote(secret, safe="")):
            server.on(TOKEN, server.reply(400, {"error_description": f"no client has {said} here"}))
            with pytest.raises(Unauthorized, match=r"no client has \*\*\* here"):
                await client(secret=secret).get_job(5)
        page = f"<html><title>no client has {html.escape(secret)} here</title>".encode()
        for status, error in ((200, AirbyteProtocolError), (403, Forbidden)):
            server.on(TOKEN, server.reply(status, body=page))
            with pytest.raises(error, match=r"«no client has \*\*\* here»"):
                await client(secret=secret).get_job(5)

    async def test_a_wrong_secret_is_tried_once_for_all_who_wait(self, server: ScriptedServer, client: Make) -> None:
        release = anyio.Event()
        server.on(TOKEN, server.held(release, server.reply(401, {"errorId": "e3b0c442"})))
        one = client(secret=SECRET)
        caught = []

        async def call() -> None:
            try:
                await one.get_job(5)
            except Unauthorized as exc:
                caught.append(exc)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                release.set()
        assert len(caught) == 50
        assert len(server.requests) == 1

    async def test_no_token_endpoint(self, server: ScriptedServer, client: Make) -> None:
        server.on(TOKEN, server.reply(404, body=b"<html>", headers={"Content-Type": "text/html"}))

        with pytest.raises(NotFound, match="without authentication set neither client id nor secret"):
            await client(secret=SECRET).get_job(5)
        assert len(server.requests) == 1

    async def test_a_token_endpoint_in_trouble(self, server: ScriptedServer, client: Make) -> None:
        server.on(TOKEN, server.reply(503), server.reset(), server.reply(200, token()))
        server.on(CREATE, server.reply(200, RUNNING))

        # Even for what must not be sent twice: it was not sent.
        assert (await client(secret=SECRET).create_job("c")).job_id == 5
        assert server.count(CREATE) == 1

    @pytest.mark.parametrize("content", [{}, {"access_token": ""}, {"access_token": 5}, {"access_token": "a\r\nb: c"}])
    async def test_a_token_that_is_none(self, server: ScriptedServer, client: Make, content: Any) -> None:
        server.on(TOKEN, server.reply(200, content))

        with pytest.raises(AirbyteProtocolError, match="no usable access_token"):
            await client(secret=SECRET).get_job(5)

    async def test_another_token_url(self, server: ScriptedServer, client: Make) -> None:
        server.on("POST /api/v1/applications/token", server.reply(200, token()))
        server.on(JOB_PATH, server.reply(200, ENDED))

        await client(secret=SECRET, token_url="/api/v1/applications/token").get_job(5)
        assert authorizations(server) == ["Bearer t0ken-1"]

    async def test_no_credentials_and_401(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.reply(401, {"message": "Unauthorized"}))

        with pytest.raises(Unauthorized, match="Unauthorized"):
            await client().get_job(5)
        assert len(server.requests) == 1

    @pytest.mark.parametrize(("client_id", "client_secret"), [("", "x"), ("x", "")])
    def test_half_of_the_credentials(self, client_id: str, client_secret: str) -> None:
        with pytest.raises(SettingsError, match="empty"):
            Credentials(client_id=client_id, client_secret=client_secret)

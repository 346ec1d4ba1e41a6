"""Responses that the API client refuses, or explains."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from airbyte_events._utils.http import no_cookies
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.errors import (
    AirbyteError,
    AirbyteProtocolError,
    AirbyteStatusError,
    Conflict,
    Forbidden,
    NotFound,
    Unprocessable,
)
from airbyte_events.events import JobStatus
from support.api import BASE, CREATE, ENDED, JOB_PATH, JOBS, Make, problem
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, AirbyteStatusError),
            (403, Forbidden),
            (404, NotFound),
            (405, AirbyteStatusError),
            (409, Conflict),
            (418, AirbyteStatusError),
            (422, Unprocessable),
            (499, AirbyteStatusError),
        ],
    )
    async def test_other_4xx_are_final(
        self, server: ScriptedServer, client: Make, status: int, error: type[AirbyteStatusError]
    ) -> None:
        server.on(JOB_PATH, server.reply(status, {}), server.reply(200, ENDED))

        with pytest.raises(AirbyteStatusError) as caught:
            await client().get_job(5)

        assert type(caught.value) is error
        assert caught.value.status_code == status
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("type", "kind"),
        [
            ("https://reference.airbyte.com/reference/errors#try-again-later", "try-again-later"),
            ("https://reference.airbyte.com/reference/errors#409-state-conflict", "state-conflict"),
            ("error:409-state-conflict", "state-conflict"),
            ("error:cron-validation/missing-cron-data", "missing-cron-data"),
            ("error:1409-conflicts", "1409-conflicts"),
            ("error:409", "409"),
        ],
    )
    async def test_the_kind_of_a_problem_is_the_last_part_of_its_type(
        self, server: ScriptedServer, client: Make, type: str, kind: str
    ) -> None:
        server.on(JOB_PATH, server.reply(409, {"type": type, "title": "t", "data": {"message": "m"}}))
        with pytest.raises(Conflict) as caught:
            await client().get_job(5)
        assert caught.value.type == kind

    @pytest.mark.parametrize("kind", ["try-again-later", "state-conflict"])
    async def test_a_conflict_has_its_type_and_airbytes_words(
        self, server: ScriptedServer, client: Make, kind: str
    ) -> None:
        server.on(CREATE, server.reply(409, problem(kind, "A sync is already running.")))

        with pytest.raises(Conflict) as caught:
            await client().create_job("c")

        host = server.url.removeprefix("http://")
        assert caught.value.type == kind
        assert str(caught.value) == f"POST {BASE}/jobs at {host}: 409 {kind}: A sync is already running."
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({"type": "error:state-conflict", "data": {"message": "one"}}, "409 state-conflict: one"),
            ({"title": "two", "detail": "one"}, "409: one"),
            ({"title": "one", "type": "about:blank"}, "409: one"),
            ({"detail": "State conflict", "title": "state-conflict", "data": {"message": "one"}}, "409: one"),
            ({"detail": "one", "data": {"resourceType": "connection", "resourceId": "2"}}, "409: one (connection 2)"),
            # The web framework's own shape.
            ({"message": "Conflict", "_links": {}, "_embedded": {"errors": [{"message": "one"}]}}, "409: one"),
            ({"_embedded": {"errors": [{"message": each} for each in "abacd"]}}, "409: a; b; c"),
            ({"message": "one", "_embedded": {"errors": []}}, "409: one"),
            ({"message": "one", "_embedded": {"errors": [{"message": 1}, "x", None]}}, "409: one"),
            ({"message": "one", "_embedded": [1]}, "409: one"),
            # OAuth's.
            ({"error": "invalid_client", "error_description": "one"}, "409: one"),
            ({"error": "invalid_client"}, "409: invalid_client"),
            ({"error": {"code": 1}}, "409: Conflict"),
            ({}, "409: Conflict"),
            ([], "409: Conflict"),
            ({"title": 1, "type": 2, "data": []}, "409: Conflict"),
            ({"detail": "one\r\ntwo\x1b[0m"}, "409: one two?[0m"),
        ],
    )
    async def test_what_airbyte_said(self, server: ScriptedServer, client: Make, content: Any, said: str) -> None:
        server.on(JOB_PATH, server.reply(409, content))

        with pytest.raises(Conflict) as caught:
            await client().get_job(5)
        assert str(caught.value).endswith(f": {said}")

    @pytest.mark.parametrize(
        ("content_type", "body", "said"),
        [
            (
                "text/html",
                b"<html><title>Access denied</title>",
                "403: Forbidden (the response is a web page titled «Access denied»)",
            ),
            ("text/html", b"", "403: Forbidden (the response is a web page)"),
            ("text/html", b"<title>%s</title>" % (b"x" * 5000), "403: Forbidden (the response is a web page)"),
            ("application/json", b"<!doctype html><title>a\x1b[0m\nb</title>", "web page titled «a?[0m b»)"),
            ("text/plain", b"no healthy upstream\n", "403: Forbidden (no healthy upstream)"),
            ("text/plain; charset=utf-8", b"", "403: Forbidden"),
            ("application/octet-stream", b"\x00\x01", "403: Forbidden"),
            ("application/json", b"", "403: Forbidden"),
        ],
    )
    async def test_what_something_in_front_of_airbyte_said(
        self, server: ScriptedServer, client: Make, content_type: str, body: bytes, said: str
    ) -> None:
        server.on(JOB_PATH, server.reply(403, body=body, headers={"Content-Type": content_type}))

        with pytest.raises(Forbidden) as caught:
            await client().get_job(5)
        assert str(caught.value).endswith(said)
        assert (caught.value.type, caught.value.page) == (None, "web page" in said)

    async def test_what_airbyte_said_is_shortened(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.reply(403, {"detail": "x" * 5000}))

        with pytest.raises(Forbidden) as caught:
            await client().get_job(5)
        assert len(str(caught.value)) < 400

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, server: ScriptedServer, client: Make, status: int) -> None:
        target = "https://user:hunter2@login.example/sso?state=hunter2"
        server.on(JOB_PATH, server.reply(status, headers={"Location": target}))

        with pytest.raises(AirbyteProtocolError, match=r"redirected to https://login.example \(30.\)") as caught:
            await client().get_job(5)

        assert "hunter2" not in str(caught.value)
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("location", "remedy"),
        [
            ("https://login.example/sso", "a login: let requests to the API pass without one"),
            ("/login?next=/api", "a login: let requests to the API pass without one"),
            ("/oauth2/start", "a login: let requests to the API pass without one"),
            ("/api/public/v1/jobs/5/", "write the URL that needs no redirect"),
            (None, "write the URL that needs no redirect"),
        ],
    )
    async def test_a_redirect_to_a_log_in_page_is_told_from_others(
        self, server: ScriptedServer, client: Make, location: str | None, remedy: str
    ) -> None:
        server.on(JOB_PATH, server.reply(302, headers={"Location": location} if location else {}))

        with pytest.raises(AirbyteProtocolError) as caught:
            await client().get_job(5)
        assert remedy in str(caught.value)

    @pytest.mark.parametrize("location", [None, "", "/login", "http://["])
    async def test_a_redirect_to_nowhere(self, server: ScriptedServer, client: Make, location: str | None) -> None:
        server.on(JOB_PATH, server.reply(302, headers={} if location is None else {"Location": location}))

        with pytest.raises(AirbyteProtocolError, match="redirected"):
            await client().get_job(5)

    @pytest.mark.parametrize(
        ("body", "fault"),
        [
            (b"", "the response is empty"),
            (b"<html><body>Sign in</body></html>", "is a web page: check that this is the API's address"),
            (b"\n<!DOCTYPE html><title>Sign in &amp; go</title>", "is a web page titled «Sign in & go»"),
            (b'{"jobId": 5', "is not JSON"),
            (b"\xff\xfe", "is not UTF-8"),
            (b"[]", "an array instead of an object"),
            (b"{}", "a job without a usable jobId and status"),
            (b'{"jobId": true, "status": "running"}', "a job without a usable jobId and status"),
            (b"[" * 100_000, "nested too deeply"),
            (b"x" * (11 * 1024 * 1024), "larger than 10 MiB"),
        ],
    )
    async def test_an_answer_that_is_not_the_apis(
        self, server: ScriptedServer, client: Make, body: bytes, fault: str
    ) -> None:
        server.on(JOB_PATH, server.reply(200, body=body))

        with pytest.raises(AirbyteProtocolError, match=fault):
            await client().get_job(5)
        assert len(server.requests) == 1

    async def test_what_calls_itself_html_is_a_web_page(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOBS, server.reply(200, body=b"Sign in", headers={"Content-Type": "text/html"}))

        with pytest.raises(AirbyteProtocolError, match=r"is a web page: .* requires a login"):
            await client().list_jobs()

    @pytest.mark.parametrize("content", [{}, {"data": None}, {"data": {}}, {"data": [1]}, {"data": [{"jobId": 1}]}])
    async def test_a_page_of_another_shape(self, server: ScriptedServer, client: Make, content: Any) -> None:
        server.on(JOBS, server.reply(200, content))

        with pytest.raises(AirbyteProtocolError):
            await client().list_jobs()

    async def test_a_compressed_answer_was_not_asked_for(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.reply(200, body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}))

        with pytest.raises(AirbyteProtocolError, match="compressed"):
            await client().get_job(5)
        assert server.requests[0].headers["accept-encoding"] == "identity"

    @pytest.mark.parametrize("body", [b"\x1f\x8b", b"x" * (11 * 1024 * 1024)])
    async def test_an_error_is_one_whatever_its_page_is(
        self, server: ScriptedServer, client: Make, body: bytes
    ) -> None:
        headers = {"Content-Encoding": "gzip"} if len(body) == 2 else {}
        server.on(JOB_PATH, server.reply(502, body=body, headers=headers), server.reply(200, ENDED))

        assert (await client().get_job(5)).status is JobStatus.SUCCEEDED

    async def test_i3_another_jobs_state_is_not_this_ones(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.reply(200, ENDED | {"jobId": 6}))

        with pytest.raises(AirbyteProtocolError, match="is of job 6"):
            await client().get_job(5)

    async def test_a_list_of_connections_that_never_ends(self, server: ScriptedServer, client: Make) -> None:
        server.on(f"GET {BASE}/connections", server.reply(200, {"data": [{}] * 100}))

        with pytest.raises(AirbyteError, match="more than 10000 connections"):
            await client().list_connections()
        assert len(server.requests) == 100

    async def test_cookies_are_not_kept(self, server: ScriptedServer) -> None:
        server.on(JOB_PATH, server.reply(200, ENDED, headers={"Set-Cookie": "a=b; Path=/"}))
        async with httpx.AsyncClient(cookies=no_cookies()) as http:
            for _ in range(2):
                await AirbyteClient(http, server.url).get_job(5)
            assert len(http.cookies) == 0
        assert ["cookie" in request.headers for request in server.requests] == [False, False]

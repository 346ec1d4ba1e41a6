"""The API client against a server that answers anything, or nothing."""

from __future__ import annotations

import html
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import anyio
import anyio.to_thread
import httpx
import pytest

from airbyte_events._utils.http import no_cookies
from airbyte_events.airbyte import AirbyteClient, Credentials, Job, JobPage
from airbyte_events.errors import (
    AirbyteError,
    AirbyteProtocolError,
    AirbyteStatusError,
    AirbyteUnreachable,
    Conflict,
    Forbidden,
    NotFound,
    NotSent,
    RateLimited,
    ServerError,
    SettingsError,
    Unauthorized,
    Unprocessable,
)
from airbyte_events.events import JobStatus
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio

BASE = "/api/public/v1"
JOB_PATH = f"GET {BASE}/jobs/5"
JOBS = f"GET {BASE}/jobs"
CREATE = f"POST {BASE}/jobs"
CANCEL = f"DELETE {BASE}/jobs/5"
TOKEN = f"POST {BASE}/applications/token"

SECRET = "s3cr3t-of-the-client"
RUNNING = {"jobId": 5, "status": "running", "jobType": "sync", "startTime": "2024-01-01T00:00Z", "connectionId": "c"}
ENDED = RUNNING | {"status": "succeeded", "lastUpdatedAt": "2024-01-01T01:00:00Z", "duration": "PT1H"}

Make = Callable[..., AirbyteClient]


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[Make]:
    """Makes clients that wait for nothing between attempts."""
    async with httpx.AsyncClient() as http:

        def make(*, url: str | None = None, secret: str | None = None, **options: Any) -> AirbyteClient:
            credentials = Credentials(client_id="id", client_secret=secret) if secret else None
            options = {"random": lambda: 0.0, "timeout": 5.0, "create_timeout": 5.0, **options}
            return AirbyteClient(http, url or server.url, credentials=credentials, **options)

        yield make


def token(value: str = "t0ken-1", expires_in: Any = 900) -> dict[str, Any]:
    return {"access_token": value, "token_type": "Bearer", "expires_in": expires_in}


def problem(kind: str, message: str) -> dict[str, Any]:
    return {
        "title": "a title",
        "detail": "a detail",
        "type": f"https://reference.airbyte.com/reference/errors#{kind}",
        "data": {"message": message},
    }


def authorizations(server: ScriptedServer) -> list[str | None]:
    return [r.headers.get("authorization") for r in server.requests if not r.path.endswith("/token")]


class TestReading:
    async def test_a_job(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOB_PATH, server.reply(200, ENDED))

        job = await client().get_job(5)

        assert job == Job(
            job_id=5,
            status=JobStatus.SUCCEEDED,
            job_type="sync",
            connection_id="c",
            started_at=datetime(2024, 1, 1, tzinfo=UTC),
            updated_at=datetime(2024, 1, 1, 1, tzinfo=UTC),
            duration_seconds=3600.0,
        )
        assert authorizations(server) == [None]
        assert server.requests[0].headers["accept"] == "application/json"

    async def test_an_unknown_status_is_active_and_warned_of_once(
        self, server: ScriptedServer, client: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.on(JOB_PATH, server.reply(200, RUNNING | {"status": "paused"}))
        one = client()

        for _ in range(3):
            assert (await one.get_job(5)).status is JobStatus.UNKNOWN

        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.getMessage() for record in warnings] == [
            "unknown job status, counted as active: status='paused'"
        ]

    async def test_a_page_of_jobs_and_airbytes_clock(self, server: ScriptedServer, client: Make) -> None:
        page = {"data": [ENDED, RUNNING | {"jobId": 6}], "next": "http://internal/", "previous": ""}
        server.on(JOBS, server.reply(200, page, {"Date": "Mon, 01 Jan 2024 02:00:00 GMT"}))

        found = await client(workspace_ids=["w1", "w2"]).list_jobs(
            updated_since=datetime(2024, 1, 1, tzinfo=UTC),
            created_since=datetime(2023, 1, 1, tzinfo=UTC),
            connection_id="c",
            job_type="sync",
            status=JobStatus.RUNNING,
            limit=50,
            offset=10,
            order_by="updatedAt|ASC",
        )

        assert [job.job_id for job in found.jobs] == [5, 6]
        assert found.served_at == datetime(2024, 1, 1, 2, tzinfo=UTC)
        assert server.requests[0].query == {
            "limit": ["50"],
            "offset": ["10"],
            "workspaceIds": ["w1", "w2"],
            "connectionId": ["c"],
            "jobType": ["sync"],
            "status": ["running"],
            "createdAtStart": ["2023-01-01T00:00:00.000000Z"],
            "updatedAtStart": ["2024-01-01T00:00:00.000000Z"],
            "orderBy": ["updatedAt|ASC"],
        }

    async def test_clears_are_listed_as_the_resets_that_airbyte_stores(
        self, server: ScriptedServer, client: Make
    ) -> None:
        server.on(JOBS, server.reply(200, {"data": []}))
        await client().list_jobs(job_type="clear")
        assert server.requests[0].query["jobType"] == ["reset"]

    async def test_a_page_asks_for_no_more_than_it_must(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOBS, server.reply(200, {"data": []}))

        assert await client().list_jobs() == JobPage(jobs=())
        assert server.requests[0].query == {"limit": ["100"], "offset": ["0"]}

    @pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Jan 2024 02:00:00 GMT"])
    async def test_a_wrong_clock_is_none(self, server: ScriptedServer, client: Make, date: str) -> None:
        server.on(JOBS, server.reply(200, {"data": []}, {"Date": date}))

        assert (await client().list_jobs()).served_at is None

    @pytest.mark.parametrize(("limit", "offset"), [(0, 0), (101, 0), (1, -1)])
    async def test_a_page_of_no_size(self, client: Make, limit: int, offset: int) -> None:
        with pytest.raises(ValueError, match="limit"):
            await client().list_jobs(limit=limit, offset=offset)

    async def test_pages_are_counted_by_our_own_offset(self, server: ScriptedServer, client: Make) -> None:
        full = [{"data": [RUNNING | {"jobId": 1 + n + 100 * p} for n in range(100)], "next": "x"} for p in range(2)]
        short = {"data": [RUNNING | {"jobId": 201}], "next": "http://internal/more"}
        server.on(JOBS, *(server.reply(200, page) for page in (*full, short)))

        pages = [page async for page in client().find_jobs(connection_id="c")]

        assert [job.job_id for page in pages for job in page.jobs] == list(range(1, 202))
        assert [r.query["offset"] for r in server.requests] == [["0"], ["100"], ["200"]]
        assert all(r.query["connectionId"] == ["c"] and "orderBy" not in r.query for r in server.requests)

    async def test_pages_end_with_an_empty_one(self, server: ScriptedServer, client: Make) -> None:
        full = {"data": [RUNNING | {"jobId": 1 + n} for n in range(100)]}
        server.on(JOBS, server.reply(200, full), server.reply(200, {"data": []}))

        assert [len(page.jobs) async for page in client().find_jobs()] == [100, 0]

    async def test_pages_end_at_the_maximum_and_say_so(self, server: ScriptedServer, client: Make) -> None:
        pages = [{"data": [RUNNING | {"jobId": 1 + n + 100 * p} for n in range(100)]} for p in range(3)]
        server.on(JOBS, *(server.reply(200, page) for page in pages))
        found = client().find_jobs(max_pages=2)

        assert [(await anext(found)).jobs[0].job_id for _ in range(2)] == [1, 101]
        with pytest.raises(AirbyteError, match="more than 200 jobs match"):
            await anext(found)
        assert len(server.requests) == 2

    async def test_an_airbyte_that_ignores_the_offset(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOBS, server.reply(200, {"data": [RUNNING | {"jobId": 1 + n} for n in range(100)]}))

        with pytest.raises(AirbyteProtocolError, match="ignores the offset"):
            [page async for page in client().find_jobs()]
        assert len(server.requests) == 2

    async def test_a_reader_of_pages_may_stop_early(self, server: ScriptedServer, client: Make) -> None:
        server.on(JOBS, server.reply(200, {"data": [RUNNING | {"jobId": 1 + n} for n in range(100)]}))

        async for page in client().find_jobs():
            assert len(page.jobs) == 100
            break
        assert len(server.requests) == 1

    async def test_a_connection_in_airbytes_own_fields(self, server: ScriptedServer, client: Make) -> None:
        server.on(f"GET {BASE}/connections/c-1", server.reply(200, {"connectionId": "c-1", "name": "x"}))

        assert await client().get_connection("c-1") == {"connectionId": "c-1", "name": "x"}

    @pytest.mark.parametrize("connection_id", ["", "a/b", "..", "a?b", "a b", "a#b", "é"])
    async def test_a_connection_id_that_would_be_another_path(
        self, server: ScriptedServer, client: Make, connection_id: str
    ) -> None:
        with pytest.raises(ValueError, match="UUID"):
            await client().get_connection(connection_id)
        assert server.requests == []

    async def test_health(self, server: ScriptedServer, client: Make) -> None:
        server.on(f"GET {BASE}/health", server.reply(200, body=b"Successful operation"), server.reply(500))
        one = client(secret=SECRET)

        await one.health()
        with pytest.raises(ServerError):
            await one.health()
        assert authorizations(server) == [None, None]
        assert server.count(TOKEN) == 0

    async def test_health_is_not_fooled_by_a_web_page(self, server: ScriptedServer, client: Make) -> None:
        page = server.reply(200, body=b"<!doctype html>", headers={"Content-Type": "text/html; charset=utf-8"})
        server.on(f"GET {BASE}/health", page)

        with pytest.raises(AirbyteProtocolError, match="web page"):
            await client().health()


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


class TestWorkspaces:
    PATH = "/api/public/v1/workspaces/18dccc91-0ab1-4f72-9ed7-0b8fc27c5826"

    async def test_are_listed(self, server: ScriptedServer, client: Make) -> None:
        server.on("GET /api/public/v1/workspaces", server.reply(200, {"data": [{"workspaceId": "w"}]}))
        assert await client().list_workspaces() == [{"workspaceId": "w"}]

    async def test_notifications_are_set_again_if_no_answer_came(self, server: ScriptedServer, client: Make) -> None:
        wanted = {"success": {"webhook": {"enabled": True, "url": "https://example.com"}}}
        server.on(f"PATCH {self.PATH}", server.reset(), server.reply(200, {"notifications": wanted}))
        answer = await client().set_notifications(self.PATH.rpartition("/")[2], wanted)
        assert answer == {"notifications": wanted}
        assert [request.json() for request in server.requests] == [{"notifications": wanted}] * 2

    async def test_an_id_is_no_path(self, server: ScriptedServer, client: Make) -> None:
        with pytest.raises(ValueError, match="UUID"):
            await client().set_notifications("../jobs", {})
        assert server.requests == []


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

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.create_job, "c")
            with anyio.fail_after(30):
                while not server.count(CREATE):
                    await anyio.wait_all_tasks_blocked()
                assert (await one.get_job(5)).job_id == 5
            tasks.cancel_scope.cancel()


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


async def test_requests_are_counted_by_route(server: ScriptedServer, client: Make) -> None:
    server.on(TOKEN, server.reply(200, token()))
    server.on(JOB_PATH, server.reset(), server.reply(503), server.reply(200, ENDED))
    server.on(JOBS, server.reply(200, {"data": []}))
    counted = []
    one = client(secret=SECRET, on_request=lambda route, status: counted.append((route, status)))

    await one.get_job(5)
    await one.list_jobs()

    assert counted == [
        ("POST /applications/token", 200),
        ("GET /jobs/{id}", None),
        ("GET /jobs/{id}", 503),
        ("GET /jobs/{id}", 200),
        ("GET /jobs", 200),
    ]


async def test_no_secret_is_told(server: ScriptedServer, client: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong, neither secret nor token is in an error, its traceback, a log line or a repr (I7)."""
    caplog.set_level(logging.DEBUG)
    access = "t0ken-of-access"
    echo = server.reply(403, {"detail": f"no {SECRET} {access}", "type": f"x#{access}"})
    faults = [
        (server.reply(401, {"message": f"{SECRET} is wrong"}), None),
        (server.reply(200, token(access)), echo),
        (server.reply(200, token(access)), server.reply(500, {"message": f"{access} {SECRET}"})),
        (server.reply(200, token(access)), server.reply(401, {"message": access})),
        (server.reply(200, token(access)), server.reply(302, headers={"Location": "https://x.example/"})),
        (server.reply(200, token(access)), server.reply(200, body=access.encode())),
        (server.reply(200, token(access)), server.reset()),
        (server.reply(200, token(access)), server.hang()),
        (server.reply(200, token(access)), server.raw(b"garbage\r\n\r\n")),
        (server.reply(200, {"access_token": f"{access}\r\n"}), None),
        (server.reply(503, {"message": SECRET}), None),
    ]
    told = []
    for token_step, step in faults:
        server.on(TOKEN, token_step)
        server.on(JOB_PATH, step or server.reply(200, ENDED))
        one = client(secret=SECRET, timeout=0.3, attempts=2)
        with pytest.raises(AirbyteError) as caught:
            await one.get_job(5)
        told += [str(caught.value), repr(caught.value), repr(one), str(vars(caught.value))]
        told += traceback.format_exception(type(caught.value), caught.value, caught.value.__traceback__)
    told += [repr(Credentials(client_id="id", client_secret=SECRET)), caplog.text]

    for text in told:
        assert SECRET not in text
        assert access not in text
    assert f"GET {BASE}/jobs/5 at 127.0.0.1:" in caplog.text


async def test_the_wrong_address_is_refused_before_anything_is_sent() -> None:
    async with httpx.AsyncClient() as http:
        with pytest.raises(SettingsError, match="internal configuration API"):
            AirbyteClient(http, "http://localhost:8000/api/v1")
        with pytest.raises(SettingsError, match="another server"):
            AirbyteClient(http, "http://localhost:8000", token_url="http://elsewhere.example/token")
        with pytest.raises(SettingsError, match="attempts"):
            AirbyteClient(http, "http://localhost:8000", attempts=0)

"""The API client against a server that answers anything, or nothing."""

from __future__ import annotations

import logging
import traceback

import httpx
import pytest

from airbyte_events.airbyte import AirbyteClient, Credentials
from airbyte_events.errors import (
    AirbyteError,
    SettingsError,
)
from support.api import BASE, ENDED, JOB_PATH, JOBS, SECRET, TOKEN, Make, token
from support.servers import ScriptedServer

pytestmark = pytest.mark.anyio


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

"""A listener that strangers reach, raw connections to it, and the webhooks that they send."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
from anyio.abc import SocketStream
from pydantic import SecretStr

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events.listener.assembly import Listener, assemble
from airbyte_events.simulator import Simulator, serve_simulator
from airbyte_events.web.h11_protocol import MAX_CONNECTIONS, ConnectionLimits
from airbyte_events.web.server import serving
from support.listener import bearer, instance_of, settings_of
from support.servers import connect
from support.waiting import until

API_TOKENS = ("api-token-number-one-000", "api-token-number-two-000")
WEBHOOK_TOKENS = ("webhook-token-number-one", "webhook-token-number-two")


@dataclass
class ExposedListener:
    """A served listener of an Airbyte.

    :param http: shows no token.
    """

    sim: Simulator
    listener: Listener
    limits: ConnectionLimits
    http: httpx.AsyncClient
    url: str

    def webhook(self, token: str = WEBHOOK_TOKENS[0], instance: str = "default") -> str:
        return f"/webhooks/{instance}/{token}"

    async def get(self, path: str, token: str = API_TOKENS[0], **options: Any) -> httpx.Response:
        return await self.http.get(path, headers=bearer(token), **options)

    async def connect(self) -> SocketStream:
        return await connect(self.url)

    async def raw(self, data: bytes) -> bytes:
        """All that is answered, until the server ends the connection."""
        async with await self.connect() as stream:
            await stream.send(data)
            return await until_end(stream)

    async def healthy(self) -> None:
        with anyio.fail_after(30):
            assert (await self.http.get("/healthz")).status_code == 200


@asynccontextmanager
async def listening(
    limits: ConnectionLimits | None = None, *, connections: int = MAX_CONNECTIONS, **given: Any
) -> AsyncIterator[ExposedListener]:
    limits = limits or ConnectionLimits()
    async with serve_simulator(Simulator()) as sim:
        values: dict[str, Any] = {
            "instance": instance_of(sim.url),
            "api_tokens": tuple(map(SecretStr, API_TOKENS)),
            "webhook_tokens": tuple(map(SecretStr, WEBHOOK_TOKENS)),
        }
        async with (
            assemble(settings_of(**values | given), connections=connections) as listener,
            serving(listener.app, limits=limits, timeout_graceful_shutdown=30) as url,
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as http,
        ):
            yield ExposedListener(sim, listener, limits, http, url)
            listener.drain()


LAST = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def until_end(stream: SocketStream) -> bytes:
    data = b""
    with anyio.fail_after(30), contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            data += await stream.receive()
    return data


def body(job_id: int, **data: Any) -> bytes:
    block = {"type": "section", "text": {"type": "mrkdwn", "text": "Sync completed: <https://x|Orders>"}}
    now = format_time(utcnow())
    told = {"jobId": job_id, "success": True, "startedAt": now, "finishedAt": now, **data}
    return json.dumps({"text": "x", "blocks": [block], "data": told}).encode()


def shown(answer: httpx.Response) -> tuple[int, str, bytes]:
    headers = [(name, value) for name, value in answer.headers.multi_items() if name != "date"]
    return answer.status_code, str(headers), answer.content


async def until_confirmed(exposed: ExposedListener) -> None:
    async def confirmed() -> bool:
        return (await exposed.listener.store.stats()).pending == 0

    await until(confirmed)

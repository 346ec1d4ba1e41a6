"""Why a request failed, in words."""

from __future__ import annotations

import anyio
import httpx
import pytest

from airbyte_events._utils.http import why
from support.servers import accepting, free_port

pytestmark = pytest.mark.anyio


async def fault(url: str) -> str:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        with pytest.raises(httpx.HTTPError) as failed:
            await http.get(url)
    return why(failed.value)


async def test_nothing_listens_there() -> None:
    assert await fault(f"http://127.0.0.1:{free_port()}/secret") == "Connection refused"


async def test_there_is_no_such_host() -> None:
    assert (await fault("http://host.invalid/secret")).startswith("its name can't be resolved: ")


async def test_the_server_closes_the_connection_or_speaks_no_tls() -> None:
    async def close(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"hello")

    async with accepting(close) as port:
        assert await fault(f"http://127.0.0.1:{port}/") == "the server closed the connection, or does not speak HTTP"
        assert (await fault(f"https://127.0.0.1:{port}/")).startswith("no TLS connection: ")

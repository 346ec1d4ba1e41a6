"""The API client against a server that answers anything, or nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from airbyte_events.airbyte import AirbyteClient, Credentials
from support.api import Make
from support.servers import ScriptedServer


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[Make]:
    """Makes clients that wait for nothing between attempts."""
    async with httpx.AsyncClient() as http:

        def make(*, url: str | None = None, secret: str | None = None, **options: Any) -> AirbyteClient:
            credentials = Credentials(client_id="id", client_secret=secret) if secret else None
            options = {"random": lambda: 0.0, "timeout": 5.0, "create_timeout": 5.0, **options}
            return AirbyteClient(http, url or server.url, credentials=credentials, **options)

        yield make

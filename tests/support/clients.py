"""Clients as tests want them."""

from __future__ import annotations

from typing import Any

import httpx

from airbyte_events.airbyte import AirbyteClient


def client_of(http: httpx.AsyncClient, url: str, **options: Any) -> AirbyteClient:
    """Return a client that tries once and waits for nothing."""
    return AirbyteClient(http, url, **{"attempts": 1, "base_delay": 0.0, "timeout": 5.0, **options})

"""Signals of a whole listener: by its API, in the feed, as metrics, and to a target of notifications."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import pytest

from airbyte_events.events import WHOLE_LOG
from airbyte_events.feed.client import FeedClient
from airbyte_events.listener.settings.connections import ConnectionSettings
from support.listener import API_TOKEN, CLIENT_SECRET, bearer, instance_of, serve_listener, settings_of
from support.loops import anyio_backend as anyio_backend
from support.notify import table
from support.servers import ScriptedServer
from support.stage import Stage
from support.waiting import a_moment

pytestmark = pytest.mark.anyio


async def test_a_signal_is_told_to_all_who_ask(stage: Stage, server: ScriptedServer, http: httpx.AsyncClient) -> None:
    server.on("POST /events", server.reply())
    late = {stage.connection_id: ConnectionSettings(fresh_within=0.001)}
    settings = settings_of(
        instance_of(stage.sim.url, secret=CLIENT_SECRET, connections=late),
        notify=(table(url=f"{server.url}/events", statuses=("failed",), signals=("overdue",)),),
    )
    async with serve_listener(settings) as served:
        headers = bearer(API_TOKEN)

        async def ask(path: str, **params: Any) -> Any:
            return (await http.get(f"{served.url}{path}", params=params, headers=headers)).raise_for_status()

        with anyio.fail_after(30):
            while not (found := (await ask("/v1/signals", raised="true")).json()["signals"]):
                await a_moment()
            (signal,) = found
            assert (signal["signal"], signal["connection_id"]) == ("overdue", stage.connection_id)
            assert 'airbyte_events_signals{airbyte="default",signal="overdue"} 1.0' in (await ask("/metrics")).text
            start = f"{served.listener.bus.epoch}-0"
            events = (await ask("/v1/events", after=start, signals="true")).json()["events"]
            assert [event["type"] for event in events] == ["io.airbyte.connection.overdue"]
            assert events[0]["subject"] == f"connections/{stage.connection_id}"
            assert (await ask("/v1/events", after=start)).json()["events"] == []
            assert (await ask("/v1/jobs")).json()["jobs"] == []
            client = FeedClient(http, served.url, API_TOKEN)
            async with client.stream(after=served.listener.bus.cursor._replace(sequence=0), wanted=WHOLE_LOG) as frames:
                named = [(await anext(frames)).name for _ in range(2)]
            assert named == ["hello", "signal"]
            while not server.count("POST /events"):
                await a_moment()
        (request,) = [each for each in server.requests if each.path == "/events"]
        assert json.loads(request.body)["data"] == signal

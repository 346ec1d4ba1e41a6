"""The end of a listener under load, in good order: a deployment, over and over."""

from __future__ import annotations

import json
import time

import anyio
import pytest
from anyio.abc import SocketStream

from airbyte_events.events import Cursor
from soak.crowd import HEADERS
from soak.flood import notifications
from soak.listening import Listener
from soak.scene import Run
from soak.streams import Streams

pytestmark = pytest.mark.anyio

WITHIN = 5.0
"""Seconds, I8."""


async def test_i8_ends_within_5_s_under_load(run: Run) -> None:
    """With 100 streams, 20 that never read, 20 that wait for a page and 20 webhooks of which one byte is missing."""
    stops = run.rounds(5, 1)
    scene = run.scene()
    longest = 0.0
    pages: list[int] = []
    answers: list[bytes] = []
    last: list[bytes] = []

    async def wait_for_page(listener: Listener) -> None:
        answer = await run.http.get(f"{listener.url}/v1/events", params={"wait": 60, "job_id": 10**9}, headers=HEADERS)
        pages.append(answer.status_code)

    async def begin(listener: Listener, number: int) -> tuple[SocketStream, bytes]:
        (request,) = notifications(listener.webhooks, [json.dumps({"text": f"Hello {number}"}).encode()])
        stream = await anyio.connect_tcp("127.0.0.1", listener.port)
        await stream.send(request[:-1])
        return stream, request[-1:]

    async def finish(stream: SocketStream, rest: bytes) -> None:
        async with stream:
            await stream.send(rest)
            answers.append((await stream.receive())[:12])

    async def stop(listener: Listener) -> None:
        nonlocal longest
        for number in range(stops):
            await listener.ready()
            async with (
                anyio.create_task_group() as tasks,
                Streams(listener.port, Cursor(scene.first.epoch, begins), 100) as reading,
                Streams(listener.port, scene.first, 20, stalled=True),
            ):
                for _ in range(20):
                    tasks.start_soon(wait_for_page, listener)
                begun = [await begin(listener, 100 * number + each) for each in range(20)]
                await anyio.sleep(run.dice.uniform(0.5, 1))
                began = time.monotonic()
                async with anyio.create_task_group() as ending:
                    ending.start_soon(listener.stop)
                    await reading.streams[0].ended.wait()
                    for each in begun:
                        ending.start_soon(finish, *each)
                longest = max(longest, time.monotonic() - began)
                last.extend(stream.last for stream in reading.streams)
            listener.start()

    begins = await scene.fill(4)
    verdict = await scene.play(stop)
    run.report("shutdown", rounds=stops, **verdict.figures, more=f"{longest:.1f} s at most; {scene.crowd}")
    verdict.check()
    assert pages == [200] * 20 * stops
    assert answers == [b"HTTP/1.1 200"] * 20 * stops
    assert last == [b"goaway"] * 100 * stops
    assert longest < WITHIN + 1  # a busy machine's


@pytest.mark.long
@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
async def test_i1_i5_rolling_upgrade(run: Run, kind: str, request: pytest.FixtureRequest) -> None:
    """The old one ends, then the new one begins on the same store: of a file one at a time can have it."""
    upgrades = run.rounds(20 if kind == "SQLite" else 8, 3)
    codes: list[int] = []

    async def upgrade(listener: Listener) -> None:
        for _ in range(upgrades):
            await listener.ready()
            await anyio.sleep(run.dice.uniform(0.2, 1))
            code, _ = await listener.stop()
            codes.append(code)
            listener.start()

    stores = {"STORE": request.getfixturevalue("postgres").url()} if kind == "PostgreSQL" else {}
    scene = run.scene(**stores)
    verdict = await scene.play(upgrade)
    run.report(f"rolling upgrade, {kind}", rounds=upgrades, **verdict.figures, more=str(scene.crowd))
    verdict.check()
    assert codes == [0] * upgrades

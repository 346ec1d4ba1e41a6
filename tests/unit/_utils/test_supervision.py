"""What is to run for ever begins again when it has failed, and says meanwhile that it does not run."""

from __future__ import annotations

import logging

import anyio
import pytest

from airbyte_events._utils.supervision import supervise
from support.waiting import in_background

pytestmark = pytest.mark.anyio


class Source:
    """Fails that many times, then runs until it is ended."""

    def __init__(self, failures: int, faults: dict[str, str]) -> None:
        self.left = failures
        self.faults = faults
        self.seen: list[dict[str, str]] = []
        self.runs = anyio.Event()
        self.end = anyio.Event()

    async def run(self) -> None:
        self.seen.append(dict(self.faults))
        if self.left:
            self.left -= 1
            async with anyio.create_task_group():
                raise RuntimeError("canary-0123456789")
        self.runs.set()
        await self.end.wait()


async def test_what_fails_is_begun_again_and_named_until_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    faults: dict[str, str] = {}
    source = Source(3, faults)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                await supervise("the source", source.run, faults, steady=0.05, first=0.001)

            tasks.start_soon(run)
            await source.runs.wait()
            while faults:
                await anyio.lowlevel.checkpoint()
            source.end.set()
    assert source.seen == [{}, *[{"the source": "fails: RuntimeError"}] * 3]
    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in lines] == ["the source failed, restarting: error=RuntimeError"] * 3
    assert [record.exc_info is not None for record in lines] == [True, False, False]
    assert not any("canary" in record.getMessage() for record in lines)


async def test_what_is_cancelled_is_not_begun_again() -> None:
    source = Source(0, {})
    async with in_background(supervise, "the source", source.run, source.faults):
        await source.runs.wait()
    assert len(source.seen) == 1


async def test_what_returns_is_not_begun_again() -> None:
    source = Source(1, {})
    source.end.set()
    with anyio.fail_after(30):
        await supervise("the source", source.run, source.faults, first=0.001)
    assert source.faults == {}
    assert len(source.seen) == 2

"""How a listener is meanwhile: whether it answers in time, and what memory it takes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import httpx

from soak.listening import Listener

MEBIBYTE = 1024 * 1024


@dataclass
class Vitals:
    """:param answers: seconds that each ``/healthz`` took, in order.
    :param before: resident bytes at the start.
    :param most: resident bytes at most.
    """

    before: int = 0
    most: int = 0
    answers: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def growth(self) -> int:
        return self.most - self.before

    def __str__(self) -> str:
        slowest = max(self.answers, default=0)
        median = sorted(self.answers)[len(self.answers) // 2] if self.answers else 0
        return (
            f"memory {self.before / MEBIBYTE:.0f} to {self.most / MEBIBYTE:.0f} MiB; health {len(self.answers)} times,"
            f" {median * 1000:.0f} ms, {slowest * 1000:.0f} ms at most"
        )

    def check(self, *, mebibytes: int, seconds: float = 5.0) -> None:
        """:param mebibytes: that it may have grown by.
        :param seconds: that no answer may have taken: probes of orchestrators give up after some.
        """
        assert not self.failures, self.failures[:5]
        assert max(self.answers) < seconds, str(self)
        assert self.growth < mebibytes * MEBIBYTE, str(self)


@asynccontextmanager
async def watched(listener: Listener) -> AsyncIterator[Vitals]:
    """Look twenty times a second while this is entered."""
    vitals = Vitals(before=listener.resident, most=listener.resident)

    async def look() -> None:
        async with httpx.AsyncClient(base_url=listener.url, trust_env=False, timeout=30) as http:
            while True:
                began = time.perf_counter()
                try:
                    answer = await http.get("/healthz")
                    vitals.answers.append(time.perf_counter() - began)
                    if answer.status_code != 200:
                        vitals.failures.append(str(answer.status_code))
                except httpx.HTTPError as exc:
                    vitals.failures.append(repr(exc))
                vitals.most = max(vitals.most, listener.resident)
                await anyio.sleep(0.05)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        yield vitals
        tasks.cancel_scope.cancel()

"""Reporting to the listener which tasks have received a completion, for people who ask why one came late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anyio

from airbyte_events._utils.times import format_time, utcnow
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.events import JobEvent

BATCH_SECONDS = 1.0
"""How long receipts are collected for one request."""

MAX_PENDING = 2_000
"""The most receipts that wait to be sent; further ones are dropped."""

_TOGETHER = 200

_CLOSING_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Receipt:
    event: JobEvent
    task_url: str | None
    waiting_since: datetime
    received_at: datetime

    def data(self, now: datetime) -> dict[str, Any]:
        """Return JSON values. Times are ages: the listener's clock may differ."""
        optional = {
            "connection_id": self.event.connection_id,
            "started_at": format_time(self.event.started_at),
            "task_url": self.task_url,
        }
        return {
            "instance": self.event.ref.instance,
            "job_id": self.event.ref.job_id,
            **{name: value for name, value in optional.items() if value is not None},
            "seconds_ago": _seconds(self.received_at, now),
            "waited_seconds": _seconds(self.waiting_since, self.received_at),
        }


class Receipts:
    """Collects receipts and sends them in batches. A batch that the listener does not take is dropped.

    :param is_up: whether the listener can be reached now.
    :param send: sends receipts; it does not raise.
    """

    def __init__(self, is_up: Callable[[], bool], send: Callable[[list[dict[str, Any]]], Awaitable[None]]) -> None:
        self._is_up = is_up
        self._send = send
        self._pending: list[_Receipt] = []
        self._added = Wakeup()

    def add(self, event: JobEvent, waiting_since: datetime, task_url: str | None) -> None:
        """Report that a task receives this completion now."""
        if self._is_up() and len(self._pending) < MAX_PENDING:
            receipt = _Receipt(event=event, task_url=task_url, waiting_since=waiting_since, received_at=utcnow())
            self._pending.append(receipt)
            self._added.set()

    async def run(self) -> None:
        """Send receipts until cancelled."""
        while True:
            await self._added.wait()
            await anyio.sleep(BATCH_SECONDS)
            await self._flush()

    async def close(self) -> None:
        """Send what is left: the hub of a task in a worker ends with the completion."""
        with anyio.move_on_after(_CLOSING_SECONDS):
            await self._flush()

    async def _flush(self) -> None:
        pending, self._pending = self._pending, []
        for start in range(0, len(pending), _TOGETHER):
            now = utcnow()
            await self._send([receipt.data(now) for receipt in pending[start : start + _TOGETHER]])


def _seconds(since: datetime, until: datetime) -> float:
    return round(max(0.0, (until - since).total_seconds()), 3)

"""Triggers to compare with: one that only waits, and one that is told directly."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class BareTrigger(BaseTrigger):
    """Waits for what never comes: what any trigger costs."""

    def __init__(self, job_id: int, **_: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_id = job_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "references.BareTrigger", {"job_id": self.job_id}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.Event().wait()
        yield TriggerEvent({"job_id": self.job_id})  # type: ignore[no-untyped-call]


class OracleTrigger(BareTrigger):
    """Told by Airbyte's own webhook, straight into the waiting process: the least that any trigger can take.

    :param end_from_trigger: end the task without a worker, with as many XComs as this project's tasks have: Airflow
        stores each in a loop of the triggerer's supervisor, whoever pushes it. As part of the event, they would have
        other types.
    """

    def __init__(self, job_id: int, end_from_trigger: bool = False, **_: Any) -> None:
        super().__init__(job_id)
        self.end_from_trigger = end_from_trigger

    def serialize(self) -> tuple[str, dict[str, Any]]:
        kwargs = {"job_id": self.job_id, "end_from_trigger": self.end_from_trigger}
        return "references.OracleTrigger", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await Oracle.here()
        told = await _TOLD.setdefault(self.job_id, asyncio.get_running_loop().create_future())
        if self.end_from_trigger:
            # Not before: when this trigger begins, the floor imports nothing of this project.
            from airbyte_events_provider.triggers.xcoms import push_xcoms
            from airbyte_events_provider.waiting.result import xcoms

            await push_xcoms(self.task_instance, xcoms({"job_id": told["job_id"], "job": told}))
            yield TaskSuccessEvent()
        else:
            yield TriggerEvent(told)  # type: ignore[no-untyped-call]


_TOLD: dict[int, asyncio.Future[dict[str, Any]]] = {}


class Oracle(asyncio.Protocol):
    """The least of a webhook server: answers every POST and tells the trigger that its body names."""

    _server: asyncio.Task[asyncio.Server] | None = None

    def __init__(self) -> None:
        self._received = b""

    @classmethod
    async def here(cls) -> None:
        """Listen on ``ORACLE_PORT`` of loopback, once in a process."""
        if cls._server is None:
            loop = asyncio.get_running_loop()
            cls._server = loop.create_task(loop.create_server(cls, "127.0.0.1", int(os.environ["ORACLE_PORT"])))
        await cls._server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            return
        self._received = rest[length:]
        told = json.loads(rest[:length])["data"]
        waiting = _TOLD.pop(told["jobId"], None)
        if waiting is not None and not waiting.done():
            waiting.set_result({"status": "success" if told["success"] else "error", "job_id": told["jobId"]})
        self._transport.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

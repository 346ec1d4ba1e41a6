"""A listener's feed and watches by a script, on a real socket."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import SocketStream

from airbyte_events.events import Cursor, JobEvent, Progress
from support.servers import Program, Request, reply


@dataclass
class ScriptedFeed(Program):
    """A listener's feed and watches, which says what it is told to say.

    :param states: what it tells of jobs that are to be watched.
    :param unknown: the jobs that it says Airbyte does not have.
    :param progress: what it tells of how far jobs are.
    :param faults: by path: a status to answer with.
    :param held: answers to watches and receipts wait for this.
    :param hello: what streams begin with, after the HTTP head; None: nothing at all.
    """

    epoch: str = "e1"
    sequence: int = 0
    states: dict[int, JobEvent] = field(default_factory=dict)
    unknown: set[int] = field(default_factory=set)
    progress: list[Progress] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    held: anyio.Event | None = None
    hello: bytes | None = b""
    streams: list[SocketStream] = field(default_factory=list)
    closers: list[anyio.Event] = field(default_factory=list)

    def frame(self, name: str, data: Any = None, id: str | None = "") -> bytes:
        place = "" if id is None else f"id: {id or Cursor(self.epoch, self.sequence)}\n"
        return f"event: {name}\n{place}data: {json.dumps(data or {})}\n\n".encode()

    def job(self, event: JobEvent) -> bytes:
        self.sequence += 1
        stored = JobEvent.from_data(event.data(), Cursor(self.epoch, self.sequence))
        return self.frame("job", stored.envelope(self.url))

    async def say(self, data: bytes) -> None:
        for stream in self.streams:
            await stream.send(data)

    def hang_up(self) -> None:
        for closer in self.closers:
            closer.set()

    @property
    def receipts(self) -> list[dict[str, Any]]:
        """Those that tasks have reported."""
        bodies = [json.loads(each.body) for each in self.requests if each.path == "/v1/receipts"]
        return [receipt for body in bodies for receipt in body["receipts"]]

    @property
    def watched(self) -> list[list[int]]:
        """The jobs of each call."""
        bodies = [json.loads(each.body) for each in self.requests if each.path == "/v1/watches"]
        return [[job["job_id"] for job in body["jobs"]] for body in bodies]

    async def answer(self, request: Request, stream: SocketStream) -> None:
        if request.path in self.faults:
            await reply(stream, self.faults[request.path], {"error": "a fault"})
        elif request.path == "/v1/watches":
            if self.held is not None:
                await self.held.wait()
            refs = [(job["instance"], job["job_id"]) for job in json.loads(request.body)["jobs"]]
            states = [self.states[job_id].data() for _, job_id in refs if job_id in self.states]
            unknown = [{"instance": name, "job_id": job_id} for name, job_id in refs if job_id in self.unknown]
            await reply(stream, 200, {"jobs": states, "unknown": unknown, "cursor": "e1-0"})
        elif request.path == "/v1/progress":
            await reply(stream, 200, {"progress": [each.data() for each in self.progress]})
        elif request.path == "/v1/receipts":
            if self.held is not None:
                await self.held.wait()
            await reply(stream, 202, {"receipts": 0})
        else:
            await self._stream(stream)

    async def _stream(self, stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        if self.hello is not None:
            await stream.send(self.hello or self.frame("hello", {"epoch": self.epoch}))
        closer = anyio.Event()
        self.streams.append(stream)
        self.closers.append(closer)
        try:
            # Those who wait for the stream to be there.
            self.came.set()
            self.came = anyio.Event()
            await closer.wait()
        finally:
            self.streams.remove(stream)
            self.closers.remove(closer)

"""The two calls of Airbyte's API that list and get jobs, on a real socket: an Airbyte that fails on demand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import httpx
from anyio.abc import SocketStream

from airbyte_events._utils.times import utcnow
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.events import parse_status
from support.events import CONNECTION
from support.servers import Program, Request, reply


def problem(status: int, kind: str) -> dict[str, Any]:
    return {"title": kind, "status": status, "type": f"https://reference.airbyte.com/reference/errors#{kind}"}


@dataclass
class Airbyte(Program):
    """The two calls of the public API that tell of jobs.

    :param jobs: in the order of their creation, with the time of their last change on Airbyte's own clock.
    :param ahead: how far Airbyte's clock is ahead of ours.
    :param faults: by ``list``, ``refresh``, ``running`` (a list of those) or job id: a status to answer with, or
        ``hang``; ``internal`` may also ``stall``, within its answer.
    :param hidden: jobs that lists leave out.
    :param hides_refreshes: lists without a type leave out refreshes, as up to Airbyte 2.0.
    :param unready: jobs that are not there for the first who asks for them.
    :param held: answers wait for this.
    :param internal: the internal API's answer about a job; 404 for others.
    :param streams: its answer about a connection's progress; 404 for others.
    :param names: of connections, by id; 404 for others.
    """

    jobs: dict[int, dict[str, Any]] = field(default_factory=dict)
    changed: dict[int, datetime] = field(default_factory=dict)
    ahead: timedelta = timedelta(0)
    faults: dict[str | int, int | str] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    hides_refreshes: bool = False
    unready: set[int] = field(default_factory=set)
    held: anyio.Event | None = None
    internal: dict[int, bytes] = field(default_factory=dict)
    streams: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    dated: bool = True

    def release(self) -> None:
        """Give the answers that were held."""
        assert self.held is not None
        self.held.set()

    def now(self) -> datetime:
        return utcnow() + self.ahead

    def put(
        self,
        job_id: int,
        status: str = "running",
        *,
        job_type: str = "sync",
        connection_id: str = CONNECTION,
        ago: float = 0,
        **fields: Any,
    ) -> None:
        """Create a job or change it, that many seconds ago."""
        at = self.now() - timedelta(seconds=ago)
        job = self.jobs.setdefault(
            job_id,
            {"jobId": job_id, "jobType": job_type, "connectionId": connection_id, "startTime": at.isoformat()},
        )
        job |= {"status": status, **fields}
        if parse_status(status).terminal:
            job.setdefault("lastUpdatedAt", at.isoformat())
        self.changed[job_id] = at

    @property
    def lists(self) -> int:
        """Of what has changed, of any type."""
        return len(self._lists(lambda query: "updatedAtStart" in query and "jobType" not in query))

    def polled_since(self, lists: int) -> bool:
        return self.lists > lists

    @property
    def refresh_lists(self) -> int:
        """Whatever was asked for refreshes' sake."""
        return len(self._lists(lambda query: "updatedAtStart" not in query or "jobType" in query))

    def _lists(self, which: Callable[[dict[str, list[str]]], bool]) -> list[Request]:
        return [each for each in self.requests if each.path == "/api/public/v1/jobs" and which(each.query)]

    @property
    def reads(self) -> int:
        return self.count("GET /api/public/v1/jobs/[0-9]+")

    def reads_of(self, job_id: int) -> int:
        return self.count(f"GET /api/public/v1/jobs/{job_id}")

    async def answer(self, request: Request, stream: SocketStream) -> None:
        if self.held is not None:
            await self.held.wait()
        tail = request.path.rpartition("/")[2]
        what = "refresh" if "jobType" in request.query else "running" if "status" in request.query else "list"
        fault = self.faults.get("all") or self.faults.get(int(tail) if tail.isdigit() else what)
        if request.path.startswith("/api/v1/"):
            await self._answer_internally(request, stream)
        elif request.path.startswith("/api/public/v1/connections/"):
            await self._answer_name(tail, stream)
        elif fault == "hang":
            await stream.receive()
        elif fault == "proxy":
            await reply(stream, 404, b"<html>default backend - 404</html>", Content_Type="text/html")
        elif isinstance(fault, int):
            await reply(stream, fault, problem(fault, "a-fault"))
        elif not tail.isdigit():
            await self._list(request, stream)
        elif int(tail) in self.jobs and int(tail) not in self.unready:
            await reply(stream, 200, self.jobs[int(tail)])
        else:
            self.unready.discard(int(tail))
            await reply(stream, 409, problem(409, "state-conflict"))

    @property
    def asked_names(self) -> int:
        return self.count("GET /api/public/v1/connections/.*")

    async def _answer_name(self, connection_id: str, stream: SocketStream) -> None:
        fault = self.faults.get("names")
        if fault == "hang":
            await stream.receive()
        elif isinstance(fault, int):
            await reply(stream, fault, problem(fault, "a-fault"))
        elif connection_id in self.names:
            await reply(stream, 200, {"connectionId": connection_id, "name": self.names[connection_id]})
        else:
            await reply(stream, 404, problem(404, "resource-not-found"))

    @property
    def asked_internally(self) -> int:
        return self.count("POST /api/v1/jobs/get_without_logs")

    async def _answer_internally(self, request: Request, stream: SocketStream) -> None:
        fault, given = self.faults.get("internal"), json.loads(request.body)
        answer = self.internal.get(given.get("id")) or self.streams.get(given.get("connectionId"))
        if fault == "stall":
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        if fault in ("hang", "stall"):
            await stream.receive()
        elif isinstance(fault, int):
            await reply(stream, fault, {"errorId": "5f3a"})
        elif answer is not None:
            await reply(stream, 200, answer)
        else:
            await reply(stream, 404, {"message": "Not Found"})

    async def _list(self, request: Request, stream: SocketStream) -> None:
        updated, created = (
            datetime.fromisoformat(request.query.get(name, ["2000-01-01T00:00:00Z"])[0])
            for name in ("updatedAtStart", "createdAtStart")
        )
        offset, limit = (int(request.query[name][0]) for name in ("offset", "limit"))
        types = request.query.get("jobType", {job["jobType"] for job in self.jobs.values()} - self._hidden_types)
        found = [
            job
            for id_, job in self.jobs.items()
            if self.changed[id_] >= updated
            and datetime.fromisoformat(job["startTime"]) >= created
            and job["jobType"] in types
            and id_ not in self.hidden
            and job["status"] in request.query.get("status", [job["status"]])
        ]
        page = found[offset : offset + limit]
        dates = {"Date": format_datetime(self.now().astimezone(UTC), usegmt=True)} if self.dated else {}
        # As Airbyte's own link: on every page, without the filters, on a host that is not there.
        await reply(stream, 200, {"data": page, "next": "http://internal.invalid:1/jobs?offset=0"}, **dates)

    @property
    def _hidden_types(self) -> set[str]:
        return {"refresh"} if self.hides_refreshes else set()


def client_of(http: httpx.AsyncClient, url: str, **options: Any) -> AirbyteClient:
    """Return a client that tries once and waits for nothing."""
    return AirbyteClient(http, url, **{"attempts": 1, "base_delay": 0.0, "timeout": 5.0, **options})

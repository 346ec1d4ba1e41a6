"""Webhooks as fast as they are answered, over many connections at once, by a process of its own."""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from airbyte_events.simulator import Simulator
from airbyte_events.simulator.models import Job
from airbyte_events.simulator.notification_bodies import job_ended

_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\r\nUpgrade: h2c\r\n"
    "Content-Type: application/json\r\n\r\n"
)


def notifications(url: str, bodies: Iterable[bytes]) -> list[bytes]:
    """Whole requests, as Airbyte's client sends them."""
    where = urlsplit(url)
    heads = ((body, _HEAD.format(path=where.path, host=where.netloc, length=len(body)).encode()) for body in bodies)
    return [head + body for body, head in heads]


def announcements(airbyte: Simulator, jobs: Iterable[Job]) -> list[bytes]:
    """What Airbyte would have sent of these jobs' ends."""
    return [json.dumps(job_ended(job, airbyte.workspace, airbyte.url)).encode() for job in jobs]


_LAST_ANSWERS = 15.0


@dataclass
class Outcome:
    """:param statuses: how many answers there were of each.
    :param acknowledged: the requests, by their place, that were answered by a 2xx.
    :param broken: requests whose connection ended without an answer.
    :param slowest: seconds of the slowest answer.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    acknowledged: set[int] = field(default_factory=set)
    broken: int = 0
    slowest: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        answers = ", ".join(f"{count:,} × {status}" for status, count in sorted(self.statuses.items()))
        rate = sum(self.statuses.values()) / max(self.seconds, 0.001)
        return f"{answers}, {self.broken:,} broken off; {rate:,.0f} a second, the slowest in {self.slowest:.2f} s"


class _Connection:
    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = -1
        self.closes = False
        self._received = b""
        self._sent = 0.0

    def send(self, number: int, request: bytes) -> None:
        self.number, self._received, self._sent = number, b"", time.perf_counter()
        self.socket.sendall(request)

    def answered(self) -> tuple[int, float] | None:
        """Status and seconds, once the answer is there.

        :raises OSError: if the connection has ended.
        """
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0):
            return None
        self.closes = b"\r\nconnection: close" in head.lower()
        return int(head[9:12]), time.perf_counter() - self._sent


class _Flood:
    def __init__(self, address: tuple[str, int], requests: list[bytes], ends: float) -> None:
        self.outcome = Outcome()
        self.selector = selectors.DefaultSelector()
        self._address, self._ends = address, ends
        self._left = iter(enumerate(requests))

    def send_next(self, connection: _Connection | None = None) -> None:
        """Send the next request, over a new connection unless there is one; close it if there is none to send."""
        following = next(self._left, None)
        if following is None or time.perf_counter() > self._ends:
            if connection is not None:
                connection.socket.close()
            return
        try:
            connection = connection or _Connection(self._address)
            connection.send(*following)
        except OSError:
            self.outcome.broken += 1
            return
        self.selector.register(connection.socket, selectors.EVENT_READ, connection)

    def take(self, connection: _Connection) -> None:
        """Take what a connection has received."""
        try:
            answer = connection.answered()
        except OSError:
            self.outcome.broken += 1
            self.selector.unregister(connection.socket)
            connection.socket.close()
            self.send_next()
            return
        if answer is None:
            return
        status, took = answer
        self.outcome.statuses[status] += 1
        self.outcome.slowest = max(self.outcome.slowest, took)
        if 200 <= status <= 299:
            self.outcome.acknowledged.add(connection.number)
        self.selector.unregister(connection.socket)
        if connection.closes:
            connection.socket.close()
        self.send_next(None if connection.closes else connection)


def run(address: tuple[str, int], requests: list[bytes], connections: int, seconds: float) -> Outcome:
    """Send each request once, for so long at most. Connections that end are opened again."""
    began = time.perf_counter()
    flood = _Flood(address, requests, began + seconds)
    with flood.selector as selector:
        for _ in range(connections):
            flood.send_next()
        while selector.get_map() and time.perf_counter() < began + seconds + _LAST_ANSWERS:
            for key, _ in selector.select(timeout=1):
                flood.take(key.data)
        for key in list(selector.get_map().values()):
            flood.outcome.broken += 1
            key.data.socket.close()
    flood.outcome.seconds = time.perf_counter() - began
    return flood.outcome

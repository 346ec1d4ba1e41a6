"""Sends notifications of ended jobs as fast as they are answered, over a number of connections, and prints JSON::

    python load.py --url URL --first-job N --count N --connections N

Raw sockets and one poll loop, bodies made beforehand: it takes a small part of what the server takes. Headers and their
order are those of Java's client over plain HTTP.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airbyte_events.simulator import Script
from airbyte_events.simulator.notification_bodies import job_ended
from airbyte_events.simulator.timers import Timers
from airbyte_events.simulator.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = (
    "POST {path} HTTP/1.1\r\n"
    "Connection: Upgrade, HTTP2-Settings\r\n"
    "Content-Length: {length}\r\n"
    "Host: {host}\r\n"
    "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\r\n"
    "Upgrade: h2c\r\n"
    "User-Agent: Java-http-client/21.0.5\r\n"
    "Content-Type: application/json\r\n\r\n"
)


def notifications(url: str, first_job: int, count: int) -> list[bytes]:
    """Whole requests, one for each of the jobs that follow one another, each of a connection of its own."""
    where = urlsplit(url)
    world = World(Timers())
    workspace = world.add_workspace()
    requests = []
    for job_id in range(first_job, first_job + count):
        job = world.start_job(world.add_connection(Script.hanging()))
        job.id = job_id
        body = json.dumps(job_ended(world.end_job(job, "succeeded"), workspace, "http://airbyte")).encode()
        requests.append(HEAD.format(path=where.path, host=where.netloc, length=len(body)).encode() + body)
    return requests


class Connection:
    """One connection with one request under way."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.closes = False
        self._received = b""
        self._sent = 0.0

    def send(self, request: bytes) -> None:
        self._sent = time.perf_counter()
        self.socket.sendall(request)

    def answered(self) -> tuple[int, float] | None:
        """Status and seconds, once the whole answer is there."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed a connection without a response")
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0):
            return None
        self._received = b""
        self.closes = b"\r\nconnection: close" in head.lower()
        return int(head[9:12]), time.perf_counter() - self._sent


def run(address: tuple[str, int], requests: list[bytes], connections: int) -> dict[str, object]:
    left: Iterator[bytes] = iter(requests)
    statuses: Counter[int] = Counter()
    seconds: list[float] = []
    with selectors.DefaultSelector() as selector:
        for _ in range(min(connections, len(requests))):
            connection = Connection(address)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        began = time.perf_counter()
        for key in list(selector.get_map().values()):
            key.data.send(next(left))
        while len(seconds) < len(requests):
            for key, _ in selector.select():
                answer = key.data.answered()
                if answer is not None:
                    statuses[answer[0]] += 1
                    seconds.append(answer[1])
                    connection = key.data
                    if connection.closes:
                        selector.unregister(connection.socket)
                        connection.socket.close()
                    if (request := next(left, None)) is not None:
                        if connection.closes:
                            connection = Connection(address)
                            selector.register(connection.socket, selectors.EVENT_READ, connection)
                        connection.send(request)
        took = time.perf_counter() - began
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    seconds.sort()
    return {
        "per_second": len(requests) / took,
        "p50": seconds[len(seconds) // 2],
        "p99": seconds[int(len(seconds) * 0.99)],
        "statuses": dict(statuses),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--first-job", type=int, default=1, metavar="N")
    parser.add_argument("--count", type=int, default=3000, metavar="N")
    parser.add_argument("--connections", type=int, default=32, metavar="N")
    options = parser.parse_args()
    where = urlsplit(options.url)
    requests = notifications(options.url, options.first_job, options.count)
    print(json.dumps(run((where.hostname or "127.0.0.1", where.port or 80), requests, options.connections)))


if __name__ == "__main__":
    main()

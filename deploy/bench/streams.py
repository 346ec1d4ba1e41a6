"""Opens streams to a listener, has jobs end, and waits until every stream has seen every end; prints JSON::

    FEED_TOKEN=… python streams.py --url LISTENER --streams N --jobs FIRST-LAST --end SIMULATOR

Raw sockets and one poll loop: bytes are searched for ends, not parsed, so that it takes a small part of what the
listener takes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import selectors
import socket
import time
from urllib.parse import urlsplit

import httpx

GIVE_UP_SECONDS = 240.0
NEEDLE = b'"io.airbyte.job.succeeded"'


class Stream:
    """:param wanted: how many ends it is to see."""

    def __init__(self, where: tuple[str, int], token: str, wanted: int) -> None:
        self.socket = socket.create_connection(where, timeout=60)
        request = f"GET /v1/events?terminal=true HTTP/1.1\r\nHost: {where[0]}\r\nAccept: text/event-stream\r\n"
        self.socket.sendall(f"{request}Authorization: Bearer {token}\r\n\r\n".encode())
        received = b""
        while b"event: hello" not in received:
            if not (data := self.socket.recv(4096)):
                raise ConnectionError("the listener closed a stream")
            received += data
        self.socket.setblocking(False)
        self._tail = b""
        self.left = wanted

    def read(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the listener closed a stream")
        text = self._tail + data
        self.left -= text.count(NEEDLE)
        # A needle that was cut is found with what follows, and none is counted twice.
        self._tail = text[text.rfind(NEEDLE) + len(NEEDLE) if NEEDLE in text else 0 :][-len(NEEDLE) + 1 :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--streams", type=int, required=True, metavar="N")
    parser.add_argument("--jobs", required=True, metavar="FIRST-LAST")
    parser.add_argument("--end", required=True, metavar="URL", help="of the simulator that has the jobs")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    first, last = map(int, options.jobs.split("-"))
    jobs = list(range(first, last + 1))
    token = os.environ["FEED_TOKEN"]
    at = urlsplit(options.url)
    where = (at.hostname or "127.0.0.1", at.port or 80)
    with selectors.DefaultSelector() as selector, httpx.Client(trust_env=False, timeout=60) as http:
        streams = [Stream(where, token, len(jobs)) for _ in range(options.streams)]
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        http.post(f"{options.end}/_simulator/jobs/end", json={"job_ids": jobs}).raise_for_status()
        open_ = len(streams)
        asked = time.perf_counter()
        began = None  # when the first stream saw the first end
        while open_:
            if time.perf_counter() - asked > GIVE_UP_SECONDS:
                raise TimeoutError(f"{open_} streams have not seen everything")
            for key, _ in selector.select(timeout=5):
                key.data.read()
                if began is None and key.data.left < len(jobs):
                    began = time.perf_counter()
                if key.data.left <= 0:
                    selector.unregister(key.fileobj)
                    open_ -= 1
        took = time.perf_counter() - (began or asked)
        seen = sum(len(jobs) - stream.left for stream in streams)
        for stream in streams:
            stream.socket.close()
    print(json.dumps({"seconds": took, "frames_per_second": seen / took, "events": len(jobs)}))


if __name__ == "__main__":
    main()

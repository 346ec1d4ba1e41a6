"""Follows a listener's feed until SIGTERM; then writes when it saw each job's end::

    FEED_TOKEN=… python follower.py --url URL --output FILE

A file of the output's name with ``.started`` at its end appears once the stream is open.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path

import anyio
import httpx

from airbyte_events.feed.client import FeedClient


async def follow(url: str, output: Path) -> None:
    seen: dict[int, float] = {}

    def leave(*_: object) -> None:
        part = output.with_name(output.name + ".part")
        part.write_text(json.dumps(seen))
        part.replace(output)
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    async with httpx.AsyncClient(trust_env=False) as http:
        client = FeedClient(http, url, os.environ["FEED_TOKEN"])
        async with client.stream() as frames:
            async for frame in frames:
                if frame.name == "hello":
                    output.with_name(output.name + ".started").touch()
                elif frame.event is not None and frame.event.terminal:
                    seen.setdefault(frame.event.ref.job_id, time.time())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--output", required=True, type=Path, metavar="FILE")
    options = parser.parse_args()
    anyio.run(follow, options.url, options.output)


if __name__ == "__main__":
    main()

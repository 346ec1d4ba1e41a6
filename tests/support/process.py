"""A listener in a process of its own."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream


def environ_of(**settings: str) -> dict[str, str]:
    """Return the environment with these settings and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRBYTE_EVENTS_")}
    return kept | {f"AIRBYTE_EVENTS_{name}": value for name, value in settings.items()}


@asynccontextmanager
async def listener_process(
    serve: Sequence[str], env: dict[str, str], log: Path
) -> AsyncIterator[tuple[Process, str, str]]:
    """Run a listener until the block is left; what it has said on standard output, and its URL.

    :param log: its standard error.
    """
    with log.open("w") as stderr:
        process = await anyio.open_process(serve, stdin=DEVNULL, stdout=PIPE, stderr=stderr, env=env)
    try:
        assert process.stdout is not None
        said = ""
        with anyio.fail_after(60):
            async for text in TextReceiveStream(process.stdout):
                said += text
                if re.search(r"/webhooks/[^\n]+\n", said):
                    break
        assert "listens on" in said, f"see {log}"
        yield process, said, re.findall(r"listens on (http://\S+)", said)[0]
    finally:
        if process.returncode is None:
            process.kill()
        await process.aclose()

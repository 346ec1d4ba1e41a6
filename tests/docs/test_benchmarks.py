"""The README's figures are those of the benchmarks page, whose stalls are the event loop's own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_figures_of_the_readme_are_those_of_the_benchmarks() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    headline = page[page.index("## In short") :]
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| [^|]+ \|$", headline, re.MULTILINE)[:4]
    assert len(rows) == 4
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row not in readme] == []


HEARTBEAT = """
import asyncio, sys, time
from heartbeat import BEAT, Heartbeat

async def beats(heartbeat, more):
    until = len(heartbeat.late) + more
    while len(heartbeat.late) < until:
        await asyncio.sleep(BEAT)

async def main():
    heartbeat = Heartbeat()
    beating = asyncio.create_task(heartbeat.beat())
    await beats(heartbeat, 5)
    print("beats", flush=True)
    if sys.argv[1] == "blocked":
        time.sleep(float(sys.argv[2]))
    await asyncio.to_thread(sys.stdin.readline)
    await beats(heartbeat, 5)
    print(max(heartbeat.late), heartbeat.blocked)

asyncio.run(main())
"""

STALL = 0.4
"""Seconds."""


@pytest.mark.parametrize("how", ["blocked", "without a processor"])
def test_a_wait_for_a_processor_is_no_stall_of_the_loop(how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HEARTBEAT, how, str(STALL)],
        cwd=ROOT / "deploy" / "bench",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "beats\n"
        if how == "without a processor":
            process.send_signal(signal.SIGSTOP)
            time.sleep(STALL)
            process.send_signal(signal.SIGCONT)
        longest, blocked = map(float, process.communicate("over\n")[0].split())
    assert longest > STALL / 2
    assert (blocked > longest / 2) == (how == "blocked")

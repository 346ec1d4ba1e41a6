"""One listener and its streams: how long until the last of so many has seen every one of a burst of events."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from part import Aim, Row
from part import seconds as shown
from processes import StackError
from rig import HERE, Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from processes import Processes

TITLE = "Many streams of one listener"
NOTE = "From the first event on a stream until the last stream has received the last event."
COLUMNS = ("pushed",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """:param streams: how many, in turns.
    :param events: that each of them sees.
    """

    streams: tuple[int, ...] = (1, 100, 1000)
    events: int = 500


FULL = Scale()
SMALL = Scale(streams=(20,), events=20)


def duration(scale: Scale) -> float:
    """About how long it takes, in seconds."""
    return 5 + sum(4 + count * scale.events * 0.00001 for count in scale.streams)


def rows(seen: Mapping[str, Any]) -> Iterator[Row]:
    for count, each in seen.items():
        streams = "1 stream" if count == "1" else f"{int(count):,} streams"
        yield Row(what=f"{each['events']} events to {streams}", cells={"pushed": shown(each["seconds"])})


def aims(seen: Mapping[str, Any]) -> Iterator[Aim]:
    yield from ()


def measure(processes: Processes, home: Path, scale: Scale, progress: Callable[[str], None]) -> dict[str, Any]:
    """By number of streams: seconds from the first frame on a stream to the last on the last, and frames a second."""
    found = {}
    for count in scale.streams:
        rig = Rig(processes, home, f"fanout-{count}", listener=True)
        jobs = rig.start_jobs(scale.events)
        command = [sys.executable, str(HERE / "streams.py"), "--url", str(rig.listener_url), "--streams", str(count)]
        command += ["--jobs", f"{jobs[0]}-{jobs[-1]}", "--end", rig.airbyte_url]
        told = subprocess.run(
            command,
            env=rig.environment({"FEED_TOKEN": rig.api_token}),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if told.returncode:
            raise StackError(f"the streams failed:\n{told.stderr}")
        found[str(count)] = json.loads(told.stdout)
        rig.close()
    return found

"""From a webhook to a process that follows the feed: a hundred webhooks a second, each of a job that has just ended."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from part import Aim, Row, within
from part import seconds as shown
from quantiles import percentiles
from rig import HERE, Rig

from airbyte_events._utils.times import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from processes import Processes

TITLE = "Published after the webhook arrived"
NOTE = (
    "Webhooks arrive at a constant rate, each of a job that has just completed. The time ends when another process has "
    "received the event from the feed. It includes storing the webhook, asking Airbyte's API and storing the event."
)
COLUMNS = ("pushed",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """:param rate: webhooks a second.
    :param seconds: for which they come.
    """

    rate: int = 100
    seconds: float = 20.0


FULL = Scale()
SMALL = Scale(seconds=3.0)


def duration(scale: Scale) -> float:
    """About how long it takes, in seconds."""
    return 7 + scale.rate * scale.seconds * 0.004 + scale.seconds


def rows(seen: Mapping[str, Any]) -> Iterator[Row]:
    for name in ("p50", "p95", "p99"):
        yield Row(what=f"{seen['rate']} webhooks a second, {name}", cells={"pushed": shown(seen[name])})


def aims(seen: Mapping[str, Any]) -> Iterator[Aim]:
    for name, limit in (("p50", 0.012), ("p99", 0.060)):
        yield within(f"published after the webhook at {seen['rate']} a second, {name}", seen[name], limit)


def measure(processes: Processes, home: Path, scale: Scale, progress: Callable[[str], None]) -> dict[str, Any]:
    """Seconds from the sending of a webhook to its event in another process."""
    rig = Rig(processes, home, "delivery", listener=True)
    output = rig.home / "follower.json"
    command = [sys.executable, str(HERE / "follower.py"), "--url", str(rig.listener_url), "--output", str(output)]
    name = rig.start("follower", command, {"FEED_TOKEN": rig.api_token})
    processes.wait_until(output.with_name(output.name + ".started").exists, "an open feed", timeout=30, blame=[name])
    rig.end_now(rig.start_jobs(1))  # the first webhook of all opens a client and connections
    job_ids = rig.start_jobs(int(scale.rate * scale.seconds))
    begin = time.time() + 2 + len(job_ids) * 0.005
    rig.end_at({job_id: begin + number / scale.rate for number, job_id in enumerate(job_ids)})
    processes.watch(max(0.0, begin + scale.seconds - time.time()))  # asking the simulator holds up its webhooks
    processes.wait_until(lambda: len(rig.ended(job_ids)) == len(job_ids), "all jobs' ends", timeout=scale.seconds + 60)
    processes.watch(3)
    processes.stop(name)
    seen = {int(job_id): at for job_id, at in json.loads(output.read_text()).items()}
    jobs = {job["job_id"]: job for job in rig.get("/jobs")["jobs"]}
    sent = {job_id: parse_time(jobs[job_id]["webhooks"][0]["sent_at"]) for job_id in job_ids}
    rig.close()
    late = [seen.get(job_id, math.inf) - at.timestamp() for job_id, at in sent.items() if at is not None]
    return {**percentiles(late), "rate": scale.rate}

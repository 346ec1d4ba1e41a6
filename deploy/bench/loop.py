"""What was seen of the event loop of Airflow's triggerer."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from heartbeat import stalls

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_stack import AirflowStack

BLOCKED = re.compile(r"thread was blocked for (\d+\.\d+) seconds")
"""What the triggerer's own watchdog says."""


class Loop:
    """The loop that :class:`monitor.MonitorTrigger` watches, once the DAG ``bench_monitor`` runs.

    :param output: the trigger's file.
    """

    def __init__(self, airflow: AirflowStack, output: Path) -> None:
        self._airflow, self._output = airflow, output

    def watch(self) -> None:
        """Start the watch; returns when there is something to see."""
        self._airflow.trigger_dag("bench_monitor")
        self._airflow.processes.wait_until(self._output.exists, "the monitor", timeout=60)
        self._alone: int = self._lines()[-1]["triggers"]

    @property
    def triggers(self) -> int:
        """How many triggers have come to it since the watch began."""
        return int(self._lines()[-1]["triggers"]) - self._alone

    def stalls(self, begin: float, end: float) -> dict[str, float]:
        """Longest lateness of a timer, 99th percentile, longest garbage collection and longest stall of the loop's own
        within that time, in seconds.

        :param begin: in seconds since the epoch, as the end.
        """
        wait = self._airflow.processes.wait_until
        wait(lambda: self._lines()[-1]["at"] >= end, "the monitor's next line", timeout=30)
        lines = self._lines()
        over = next(line["at"] for line in lines if line["at"] >= end)
        lines = [line for line in lines if begin < line["at"] <= over]
        most = {name: max(line[name] for line in lines) for name in ("collection", "blocked")}
        return {**stalls([late for line in lines for late in line["late"]]), **most}

    def blocked(self) -> dict[str, float]:
        """What Airflow itself has to say: how often the loop was blocked longer than 0.2 s, and the longest."""
        log = (self._airflow.home / "logs" / "components" / "triggerer.log").read_text(errors="replace")
        blocked = [float(seconds) for seconds in BLOCKED.findall(log)]
        return {"count": len(blocked), "longest": max(blocked, default=0.0)}

    def _lines(self) -> list[dict[str, Any]]:
        whole = self._output.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

"""Mapped tasks that wait for Airbyte jobs, beside such that are told directly. What they are mapped over is in the file
that ``BENCH_MAPPED`` names: ``{"ours": {task id: {"arguments": …, "values": [connection id, …]}}, "oracle": {…}}``.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator
from monitor import MonitorTrigger
from references import OracleTrigger

from airbyte_events_provider.operators.airbyte import AirbyteTriggerSyncOperator

told = json.loads(Path(os.environ["BENCH_MAPPED"]).read_text())


class Oracle(BaseOperator):
    """Waits for a job whose end its trigger is told by Airbyte itself."""

    def __init__(self, *, job_id: int, end_from_trigger: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.end_from_trigger = end_from_trigger

    def execute(self, context: Any) -> None:
        self.defer(trigger=OracleTrigger(self.job_id, self.end_from_trigger), method_name="resume")

    def resume(self, context: Any, event: Any) -> int:
        return int(event["job_id"])


class Monitor(BaseOperator):
    """Has the triggerer's event loop watched."""

    def execute(self, context: Any) -> None:
        self.defer(trigger=MonitorTrigger(told["monitor"]), method_name="resume", timeout=timedelta(hours=3))

    def resume(self, context: Any, event: Any) -> None:
        pass


with DAG(dag_id="bench_monitor", schedule=None):
    Monitor(task_id="monitor")

with DAG(dag_id="bench_mapped", schedule=None, max_active_tasks=told["max_active_tasks"]):
    for task_id, given in told["ours"].items():
        if given["values"]:
            AirbyteTriggerSyncOperator.partial(
                task_id=task_id, airbyte_conn_id="airbyte_bench", deferrable=True, **given["arguments"]
            ).expand(connection_id=given["values"])

with DAG(dag_id="bench_mapped_floor", schedule=None, max_active_tasks=told["max_active_tasks"]):
    for task_id, given in told["oracle"].items():
        if given["values"]:
            Oracle.partial(task_id=task_id, **given["arguments"]).expand(job_id=given["values"])

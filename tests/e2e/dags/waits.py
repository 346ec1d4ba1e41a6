"""A task that defers to a trigger of Airflow's own: the stack works, whatever this project does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator


class Wait(BaseOperator):
    """Waits as many seconds as the run's configuration says."""

    def execute(self, context: Any) -> None:
        seconds = float(context["dag_run"].conf["seconds"])
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=seconds)), method_name="resume")

    def resume(self, context: Any, event: Any) -> dict[str, bool]:
        self.log.info("resumed")
        return {"waited": True}


with DAG(dag_id="waits", schedule=None):
    Wait(task_id="wait")

"""A task that runs in a worker for ever, with a child in a session of its own, and one that is deferred for ever."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG, task

with DAG(dag_id="hangs", schedule=None):

    @task
    def run() -> None:
        """SIGTERM does not end the child."""
        code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause(); signal.pause()"
        subprocess.run([sys.executable, "-c", code], start_new_session=True, check=True)

    run()
    TimeDeltaSensor(task_id="defer", delta=timedelta(hours=1), deferrable=True)

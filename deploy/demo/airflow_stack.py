"""A whole Airflow for the length of a ``with`` block: api-server, scheduler, dag-processor and triggerer.

It has a home, a database, secrets and ports of its own; no setting of another Airflow reaches it, and it listens on
loopback only. Tasks are run by LocalExecutor on SQLite.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_api import AirflowApi, LogLine, TaskInstance
from processes import Processes, StackError, free_ports, scrubbed_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from typing import Self

    from processes import Process

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
FOREIGN = ("AIRFLOW_", "_AIRFLOW_", "AIRBYTE_EVENTS_")
"""How the names of the variables begin that another installation may have set."""


GRACE = 5.0
"""Seconds that a component has to end in. Most need 1 to 4; a triggerer now and then waits 10 for its own child."""


class AirflowStack:
    """Entering starts Airflow and returns when all of it is healthy; leaving ends it, to the last process.

    :param home: its AIRFLOW_HOME; made if it is not there.
    :param dags: the folder of the DAG files.
    :param connections: Airflow connections by id, in Airflow's JSON form (``conn_type``, ``host``, ``password``, …).
    :param settings: more settings, by the names of their environment variables (``AIRFLOW__SECTION__KEY``).
    :param environ: the environment that tasks and triggers shall see; variables of another Airflow are taken out.
    :param progress: is called with a line on each thing that is done.
    :param timeout: seconds for each step of the start.
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        *,
        connections: Mapping[str, Mapping[str, Any]] | None = None,
        settings: Mapping[str, str] | None = None,
        environ: Mapping[str, str] = os.environ,
        progress: Callable[[str], None] = lambda line: None,
        timeout: float = 180.0,
    ) -> None:
        self.home = home.resolve()
        self._progress = progress
        self._timeout = timeout
        port, *log_ports = free_ports(3)
        self.url = f"http://127.0.0.1:{port}"
        self._env = scrubbed_environment(environ, *FOREIGN) | {
            **configuration(self.home, dags.resolve(), port, log_ports),
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(fields) for name, fields in (connections or {}).items()},
            **(settings or {}),
        }

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self.processes = stack.enter_context(Processes(self.home / "logs" / "components", self.home))
            self.api = AirflowApi(self.url)
            stack.callback(self.api.close)
            self._migrate()
            for component in COMPONENTS:
                self._start(component)
            self.wait_until_healthy()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress("stopping Airflow")
        self._stack.close()

    def _migrate(self) -> None:
        """Make the database."""
        migration = self.processes.start("db-migrate", _airflow("db", "migrate"), env=self._env)
        status = self.processes.wait_until(
            lambda: None if migration.status is None else (migration.status,), "the database", timeout=self._timeout
        )
        if status != (0,):
            raise StackError(f"airflow db migrate ended with status {status[0]}{migration.tail()}")
        self.processes.stop("db-migrate")
        self._progress("database made")

    def _start(self, component: str, name: str | None = None, settings: Mapping[str, str] | None = None) -> None:
        # Their log servers would listen on all interfaces. Logs are read from the files: all is on one machine.
        quiet = ("--skip-serve-logs",) if component in ("scheduler", "triggerer") else ()
        self.processes.start(
            name or component, _airflow(component, *quiet), env={**self._env, **(settings or {})}, grace=GRACE
        )

    def kill(self, component: str) -> None:
        """``kill -9``: a crash. What it started goes with it."""
        self.processes[component].kill()

    def restart(self, component: str) -> None:
        """Start the component again, after stopping it unless it has ended; returns when it is healthy.

        Airflow calls a scheduler or triggerer healthy for 30 seconds after its last sign of life, so after a crash
        this may return before the new one is at work.
        """
        self.processes[component].restart()
        self.wait_until_healthy()

    @contextmanager
    def another(self, component: str, settings: Mapping[str, str] | None = None) -> Iterator[Process]:
        """One more of a component, for the length of a ``with`` block, beside the one that is there.

        :param settings: its own, by the names of their environment variables.
        """
        name = f"{component}-2"
        self._start(component, name, settings)
        try:
            yield self.processes[name]
        finally:
            self.processes.stop(name)

    def wait_until_healthy(self) -> None:
        """:raises StackError: if a component ends, or is not healthy in time."""
        seen: set[str] = set()

        def probe() -> bool:
            health = self.api.health()
            healthy = {name for name, status in health.items() if status == "healthy"}
            for name in sorted(healthy - seen):
                self._progress(f"{name.replace('_', '-')} healthy")
            seen.update(healthy)
            return bool(health) and healthy == set(health)

        self.processes.wait_until(probe, "a healthy Airflow", timeout=self._timeout, blame=COMPONENTS)

    def wait_for_dag(self, dag_id: str) -> None:
        """Returns when the DAG can be triggered.

        :raises StackError: if there is none in time, or Airflow can't import the file that is named after it; the
            message has Airflow's reason.
        """

        def probe() -> bool:
            if self.api.dag_known(dag_id):
                return True
            for file, reason in self.api.import_errors().items():
                if Path(file).stem == dag_id:
                    raise StackError(f"Airflow can't import {file}:\n{reason}")
            return False

        self.processes.wait_until(probe, f"DAG {dag_id}", timeout=self._timeout, blame=COMPONENTS)

    def trigger_dag(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Unpause the DAG and start a run of it; return the run's id."""
        self.wait_for_dag(dag_id)
        self.api.unpause(dag_id)
        return self.api.trigger_dag(dag_id, conf)

    def wait_for_task(
        self, dag_id: str, run_id: str, task_id: str, states: Collection[str], *, timeout: float = 60.0
    ) -> TaskInstance:
        """Returns when the task is in one of the states.

        :raises StackError: if it isn't in time, or has ended in another one.
        """

        def probe() -> TaskInstance | None:
            found = self.api.task_instances(dag_id, run_id)[task_id]
            if found.state in states:
                return found
            if found.ended:
                raise StackError(f"task {task_id} ended as {found.state}{self.log_tail(dag_id, run_id, task_id)}")
            return None

        return self.processes.wait_until(probe, f"task {task_id} to be {' or '.join(states)}", timeout=timeout)

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        timeout: float = 120.0,
        seen: Callable[[dict[str, TaskInstance]], object] = lambda tasks: None,
    ) -> dict[str, TaskInstance]:
        """The run's task instances by task id, once the run has ended, however.

        :param seen: is called with them at every look.
        """

        def probe() -> dict[str, TaskInstance] | None:
            ended = self.api.dag_run_state(dag_id, run_id) in ("success", "failed")
            tasks = self.api.task_instances(dag_id, run_id)
            seen(tasks)
            return tasks if ended else None

        return self.processes.wait_until(probe, f"run {run_id} of {dag_id}", timeout=timeout)

    def wait_for_log(
        self, dag_id: str, run_id: str, task_id: str, text: str, *, try_number: int = 1, timeout: float = 60.0
    ) -> LogLine:
        """The first line of the task's log that contains the text, once there is one."""

        def probe() -> LogLine | None:
            log = self.api.task_log(dag_id, run_id, task_id, try_number=try_number)
            return next((line for line in log if text in str(line)), None)

        return self.processes.wait_until(probe, f"{text!r} in the log of task {task_id}", timeout=timeout)

    def log_tail(self, dag_id: str, run_id: str, task_id: str, lines: int = 20) -> str:
        """The end of a task's log, as the end of an error's message."""
        log = [line for line in self.api.task_log(dag_id, run_id, task_id) if not line.event.startswith("::")]
        return "; the end of its log:\n" + "\n".join(f"    {line}" for line in log[-lines:])


def _airflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]


def configuration(home: Path, dags: Path, port: int, log_ports: list[int]) -> dict[str, str]:
    """The environment that makes an Airflow one of its own.

    :param port: the API server's.
    :param log_ports: two ports on which nothing answers: where an API server would ask for logs that it finds no
        file of. By default they are the ones of every Airflow on the machine.
    """
    url = f"http://127.0.0.1:{port}"
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        # The default looks the machine's name up in the DNS.
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__BASE_URL": url,
        # For the values of XComs over the REST API, which Airflow 3.3 gives without being told.
        "AIRFLOW__API__ENABLE_XCOM_DESERIALIZE_SUPPORT": "True",
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(log_ports[0]),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(log_ports[1]),
        # New and changed files are read that soon. The others are read every 30 seconds, which is work enough.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        # A worker now and then learns of its task's exit by its next heartbeat only, by default 5 seconds later.
        # Airflow 3.3 fails a deferred task whose trigger fires in between: github.com/apache/airflow/issues/72716.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # A colour code in a log file is noise in an error's message.
        "NO_COLOR": "1",
    }

"""A simulated Airbyte, a listener, and processes that wait for jobs: what every measurement is made of."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil  # type: ignore[import-untyped]
from processes import Processes, StackError, free_ports, scrubbed_environment

from airbyte_events._utils.times import parse_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMMAND = str(Path(sys.executable).with_name("airbyte-events"))
FOREIGN = ("AIRFLOW_", "_AIRFLOW_", "AIRBYTE_EVENTS_", "PYTHON")
HANGING = {"phases": [{"status": "running", "seconds": 0}], "end": None}
START_SECONDS = 60.0

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Whose triggers wait.

    :param column: in tables.
    :param trigger: ``module:class``.
    :param python: of the environment that has it.
    :param poll_interval: what the side's own operator gives the trigger, in seconds.
    :param pushed: whether the listener tells it.
    """

    name: str
    column: str
    trigger: str
    python: str = sys.executable
    poll_interval: float = 3.0
    pushed: bool = False


_OURS = "airbyte_events_provider.triggers.airbyte:AirbyteSyncTrigger"
PUSH = Side(name="push", column="pushed", trigger=_OURS, pushed=True)
POLL = Side(name="poll", column="polling only", trigger=_OURS)
OFFICIAL = Side(
    name="official",
    column="official",
    trigger="airflow.providers.airbyte.triggers.airbyte:AirbyteSyncTrigger",
    python=str(ROOT / ".venv-bench" / "bin" / "python"),
    poll_interval=60.0,
)
ORACLE = Side(name="oracle", column="floor", trigger="references:OracleTrigger")
BARE = Side(name="bare", column="floor", trigger="references:BareTrigger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process takes.

    :param processor: seconds of processor time since its start.
    :param memory: bytes that it alone holds.
    """

    processor: float
    memory: int


class Rig:
    """One simulator, one listener if wanted, and waiters. What is started here ends with ``processes``.

    :param name: sets its files and processes apart from those of other rigs.
    :param latency: seconds that each call of the simulated API takes.
    :param listener: start one, told by the webhooks of the first workspace and looking at that workspace alone.
    :param store: its store; a SQLite file by default.
    :param serve: its command.
    """

    def __init__(
        self,
        processes: Processes,
        home: Path,
        name: str,
        *,
        latency: float = 0.0,
        listener: bool = False,
        store: str | None = None,
        serve: Sequence[str] = (COMMAND, "serve"),
    ) -> None:
        self.home = home / name
        self.home.mkdir(parents=True)
        self._processes, self._name = processes, name
        self._secret = secrets.token_hex(16)
        self.api_token, self.webhook_token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        airbyte_port, listener_port, self.oracle_port = free_ports(3)
        self.airbyte_url = f"http://127.0.0.1:{airbyte_port}"
        self.listener_url = f"http://127.0.0.1:{listener_port}" if listener else None
        self._env = scrubbed_environment(os.environ, *FOREIGN)
        self._command = list(serve)
        self._store = store or f"sqlite:///{self.home / 'listener.db'}"
        self._names: list[str] = []
        self._waiters = 0
        self._control = httpx.Client(trust_env=False, timeout=60)
        options = {
            "--port": airbyte_port,
            "--connections": 0,
            "--client-id": "bench",
            "--client-secret": self._secret,
            # None has to expire: the official provider's tasks would fail by it.
            "--token-lifetime": 86400,
            "--latency": f"{latency:g}",
        }
        if listener:
            options["--webhook-url"] = self.webhook_url
        self.start("simulator", [COMMAND, "simulate", *(str(part) for item in options.items() for part in item)])
        self._wait_for("simulator", f"{self.airbyte_url}/_simulator")
        if listener:
            self._serve("listener", listener_port)

    def another_listener(self) -> str:
        """Another listener on the same store; its webhook URL is returned."""
        (port,) = free_ports(1)
        self._serve(f"listener-{port}", port)
        return f"http://127.0.0.1:{port}/webhooks/default/{self.webhook_token}"

    def _serve(self, what: str, port: int) -> None:
        self.start(what, self._command, self._listener_settings(port))
        self._wait_for(what, f"http://127.0.0.1:{port}/readyz")

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Of a process that belongs to it and is started by somebody else."""
        return self._env | dict(more)

    def close(self) -> None:
        """End all of it."""
        self._control.close()
        self._processes.stop(*(name for name in self._names if name in self._processes))

    @property
    def webhook_url(self) -> str:
        return f"{self.listener_url}/webhooks/default/{self.webhook_token}"

    def _listener_settings(self, port: int) -> dict[str, str]:
        return {
            "AIRBYTE_EVENTS_AIRBYTE_URL": self.airbyte_url,
            "AIRBYTE_EVENTS_CLIENT_ID": "bench",
            "AIRBYTE_EVENTS_CLIENT_SECRET": self._secret,
            "AIRBYTE_EVENTS_WORKSPACE_IDS": self.get("")["workspace_id"],
            "AIRBYTE_EVENTS_PORT": str(port),
            "AIRBYTE_EVENTS_STORE": self._store,
            "AIRBYTE_EVENTS_WEBHOOK_TOKENS": self.webhook_token,
            "AIRBYTE_EVENTS_API_TOKENS": self.api_token,
            "AIRBYTE_EVENTS_LOG_LEVEL": "warning",
        }

    def usage(self, what: str) -> Usage:
        """What one of its processes has taken so far.

        :param what: such as ``listener``.
        """
        process = psutil.Process(self._processes[f"{self._name}-{what}"].pid)
        times = process.cpu_times()
        return Usage(processor=times.user + times.system, memory=process.memory_full_info().uss)

    def start(self, what: str, command: list[str], env: Mapping[str, str] | None = None) -> str:
        """Start another process of this rig; what it is called is returned."""
        name = f"{self._name}-{what}"
        self._processes.start(name, command, env=self._env | {**(env or {})}, grace=5)
        self._names.append(name)
        return name

    def _wait_for(self, what: str, url: str) -> None:
        def probe() -> bool:
            try:
                return httpx.get(url, trust_env=False).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        name = f"{self._name}-{what}"
        self._processes.wait_until(probe, f"a ready {name}", timeout=START_SECONDS, blame=[name])

    def _at(self, path: str) -> str:
        return f"{self.airbyte_url}/_simulator{path}"

    def get(self, path: str) -> Any:
        """Ask the simulator's control API."""
        return self._control.get(self._at(path)).raise_for_status().json()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Tell the simulator's control API."""
        return self._control.post(self._at(path), json=body).raise_for_status().json()

    def workspace(self, webhook_url: str | None = None) -> str:
        """Another workspace, with a webhook URL of its own or none."""
        return str(self.post("/workspaces", {"webhook_url": webhook_url})["workspaceId"])

    def set_webhook_url(self, url: str | None) -> None:
        """Where the notifications of every workspace go."""
        self._control.put(self._at("/webhooks"), json={"url": url}).raise_for_status()

    def start_jobs(self, count: int, workspace_id: str | None = None) -> list[int]:
        """Jobs that run until they are told to end, each of a connection of its own."""
        if not count:
            return []
        body = {"count": count, "start": True, "script": HANGING, "workspace_id": workspace_id}
        job_ids: list[int] = self.post("/connections", body)["job_ids"]
        return job_ids

    def connections(self, count: int) -> list[str]:
        """Ids of new connections, whose jobs run until they are told to end."""
        if not count:
            return []
        connection_ids: list[str] = self.post("/connections", {"count": count, "script": HANGING})["connection_ids"]
        return connection_ids

    def jobs_by_connection(self) -> dict[str, int]:
        """The ids of the connections' jobs."""
        return {job["connection_id"]: job["job_id"] for job in self.get("/jobs")["jobs"]}

    def end_at(self, times: Mapping[int, float]) -> None:
        """Have jobs succeed at these times, in seconds since the epoch."""
        for job_id, at in times.items():
            phase = {"status": "running", "seconds": max(0.0, at - time.time())}
            script = {"phases": [phase], "end": "succeeded"}
            self._control.put(self._at(f"/jobs/{job_id}/script"), json=script).raise_for_status()

    def end_now(self, job_ids: list[int]) -> None:
        """Have jobs succeed now."""
        for start in range(0, len(job_ids), _CHUNK):
            self.post("/jobs/end", {"job_ids": job_ids[start : start + _CHUNK]})

    def ended(self, job_ids: Iterable[int]) -> dict[int, float]:
        """When each job's end was committed, in seconds since the epoch; one that has not ended is left out."""
        times = {job["job_id"]: parse_time(job["committed_at"]) for job in self.get("/jobs?status=succeeded")["jobs"]}
        return {job_id: at.timestamp() for job_id in job_ids if (at := times.get(job_id)) is not None}

    def requests(self) -> int:
        """How many requests the public API has had."""
        return int(self.get("/requests?limit=0")["total"])

    def requests_by_route(self) -> dict[str, int]:
        """The same by route, such as ``GET /jobs/{id}``."""
        counts: dict[str, int] = self.get("/requests?limit=0")["counts"]
        return counts

    def wait(self, side: Side, job_ids: Collection[int], *, memory: bool = False) -> Waiters:
        """Start a process that waits for jobs; their ids follow one another."""
        self._waiters += 1
        what = f"waiters{self._waiters}"
        output = self.home / f"{what}.json"
        command = [side.python, str(HERE / "waiters.py"), "--trigger", side.trigger, "--output", str(output)]
        command += ["--jobs", f"{min(job_ids)}-{max(job_ids)}", "--poll-interval", f"{side.poll_interval:g}"]
        command += ["--memory"] if memory else []
        name = self.start(what, command, self._airflow_settings(side, what))
        return Waiters(self._processes, name, output, side)

    def _airflow_settings(self, side: Side, what: str) -> dict[str, str]:
        airflow = self.home / f"airflow-{what}"
        settings = {
            "AIRFLOW_HOME": str(airflow),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow}/airflow.db",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "ORACLE_PORT": str(self.oracle_port),
        }
        connections = self.airflow_connections(pushed=side.pushed)
        return {
            **settings,
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(fields) for name, fields in connections.items()},
        }

    def airflow_connections(self, *, pushed: bool) -> dict[str, dict[str, Any]]:
        """What Airflow is told of this rig, by connection id.

        :param pushed: whether of the listener, too.
        """
        airbyte = {
            "conn_type": "airbyte",
            "host": f"{self.airbyte_url}/api/public/v1",
            "schema": f"{self.airbyte_url}/api/public/v1/applications/token",
            "login": "bench",
            "password": self._secret,
        }
        if not pushed:
            return {"airbyte_bench": airbyte}
        airbyte["extra"] = json.dumps({"listener_conn_id": "listener_bench"})
        listener = {"conn_type": "airbyte_events", "host": self.listener_url, "password": self.api_token}
        return {"airbyte_bench": airbyte, "listener_bench": listener}


class Waiters:
    """A process of :mod:`waiters`."""

    def __init__(self, processes: Processes, name: str, output: Path, side: Side) -> None:
        self.side, self.name = side, name
        self._processes, self._name, self._output = processes, name, output

    @property
    def started(self) -> bool:
        """Whether every trigger has had its first turn."""
        self._processes.check(self._name)
        return self._output.with_name(self._output.name + ".started").exists()

    def stop(self) -> dict[str, Any]:
        """End it, and tell what it saw."""
        self._processes.stop(self._name)
        if not self._output.exists():
            raise StackError(f"{self._name} wrote nothing: see {self._name}.log")
        result: dict[str, Any] = json.loads(self._output.read_text())
        if result["errors"]:
            job_id, error = next(iter(result["errors"].items()))
            raise StackError(f"{self._name}: the trigger of job {job_id} failed: {error}")
        return result


def wait_until_started(processes: Processes, waiters: Collection[Waiters], *, timeout: float) -> None:
    """:raises StackError: if a trigger has had no turn by then."""
    processes.wait_until(lambda: all(each.started for each in waiters), "all triggers' first turn", timeout=timeout)

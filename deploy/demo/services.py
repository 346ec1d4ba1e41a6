"""The simulated Airbyte and the listener, as two processes that know each other's addresses."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from airflow_stack import FOREIGN
from processes import Processes, free_ports, scrubbed_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

API = "/api/public/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the two will be and what opens them, chosen before they are started: Airflow can be told first."""

    airbyte_url: str
    listener_url: str
    client_id: str = field(default_factory=lambda: secrets.token_hex(8))
    client_secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    webhook_token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    api_token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @classmethod
    def choose(cls) -> Addresses:
        airbyte_port, listener_port = free_ports(2)
        return cls(airbyte_url=f"http://127.0.0.1:{airbyte_port}", listener_url=f"http://127.0.0.1:{listener_port}")

    @property
    def webhook_url(self) -> str:
        return f"{self.listener_url}/webhooks/default/{self.webhook_token}"

    def airflow_connections(self) -> dict[str, dict[str, Any]]:
        """The Airflow connections by id, for :class:`airflow_stack.AirflowStack`."""
        return {
            "airbyte_default": {
                "conn_type": "airbyte",
                "host": self.airbyte_url,
                "login": self.client_id,
                "password": self.client_secret,
                "extra": {"listener_conn_id": "airbyte_events_default"},
            },
            "airbyte_events_default": {
                "conn_type": "airbyte_events",
                "host": self.listener_url,
                "password": self.api_token,
            },
        }


class Services:
    """Entering starts both and returns when both are ready; leaving ends them.

    :param home: the folder of the listener's store and of both log files.
    :param connections: how many Airbyte connections there shall be.
    :param duration: seconds that a sync takes.
    :param poll_interval: seconds between the listener's own looks at Airbyte.
    :param settings: more of the listener's settings, by the names of their environment variables.
    """

    def __init__(
        self,
        addresses: Addresses,
        home: Path,
        *,
        connections: int,
        duration: float,
        poll_interval: float = 60.0,
        settings: Mapping[str, str] | None = None,
        environ: Mapping[str, str] = os.environ,
        progress: Callable[[str], None] = lambda line: None,
        timeout: float = 60.0,
    ) -> None:
        self.addresses = addresses
        self.listener_as_made = True
        """Whether the listener has the settings that were given here."""
        self._home = home.resolve()
        self._connections, self._duration = connections, duration
        self._progress = progress
        self._timeout = timeout
        self._env = scrubbed_environment(environ, *FOREIGN)
        self._listener_env = self._env | {
            "AIRBYTE_EVENTS_AIRBYTE_URL": addresses.airbyte_url,
            "AIRBYTE_EVENTS_CLIENT_ID": addresses.client_id,
            "AIRBYTE_EVENTS_CLIENT_SECRET": addresses.client_secret,
            "AIRBYTE_EVENTS_HOST": "127.0.0.1",
            "AIRBYTE_EVENTS_PORT": str(httpx.URL(addresses.listener_url).port),
            "AIRBYTE_EVENTS_STORE": f"sqlite:///{self._home / 'listener.db'}",
            "AIRBYTE_EVENTS_WEBHOOK_TOKENS": addresses.webhook_token,
            "AIRBYTE_EVENTS_API_TOKENS": addresses.api_token,
            "AIRBYTE_EVENTS_POLL_INTERVAL": f"{poll_interval:g}",
            **(settings or {}),
        }

    def __enter__(self) -> Self:
        self._home.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self.processes = stack.enter_context(Processes(self._home / "logs", self._home))
            self.airbyte = stack.enter_context(httpx.Client(base_url=self.addresses.airbyte_url, trust_env=False))
            self.listener = stack.enter_context(
                httpx.Client(
                    base_url=self.addresses.listener_url,
                    headers={"Authorization": f"Bearer {self.addresses.api_token}"},
                    trust_env=False,
                )
            )
            self.processes.start("simulator", self._simulate(), env=self._env)
            self.processes.start("listener", _command("serve", "--show"), env=self._listener_env)
            self._wait_for("simulator", self.airbyte, f"{API}/health")
            self._wait_for("listener", self.listener, "/readyz")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _simulate(self) -> list[str]:
        where = httpx.URL(self.addresses.airbyte_url)
        options = {
            "--host": where.host,
            "--port": where.port,
            "--webhook-url": self.addresses.webhook_url,
            "--connections": self._connections,
            "--duration": f"{self._duration:g}",
            "--client-id": self.addresses.client_id,
            "--client-secret": self.addresses.client_secret,
        }
        return _command("simulate", *(str(part) for option in options.items() for part in option))

    def _wait_for(self, name: str, client: httpx.Client, path: str) -> None:
        def probe() -> bool:
            try:
                return client.get(path).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        self.processes.wait_until(probe, f"a ready {name}", timeout=self._timeout, blame=[name])
        self._progress(f"{name} ready at {client.base_url}")

    def dashboard(self) -> str:
        """The dashboard's address that logs in once, as the listener printed it at its start."""
        lines = self.processes["listener"].log.read_text(errors="replace").splitlines()
        shown = next(line.partition("Dashboard: ")[2] for line in reversed(lines) if "Dashboard: " in line)
        return shown.replace("minutes)", "minutes of its start)")

    def kill_listener(self) -> None:
        """``kill -9``: a crash."""
        self.processes["listener"].kill()

    def restart_listener(self, **settings: str) -> None:
        """The listener again, on the same port and store; returns when it is ready.

        :param settings: until the next restart, by the names of their environment variables.
        """
        self.processes["listener"].restart(self._listener_env | settings)
        self.listener_as_made = not settings
        self._wait_for("listener", self.listener, "/readyz")

    def connection_ids(self) -> list[str]:
        """Of the simulated connections, by Airbyte's public API."""
        credentials = {
            "client_id": self.addresses.client_id,
            "client_secret": self.addresses.client_secret,
            "grant_type": "client_credentials",
        }
        token = self.airbyte.post(f"{API}/applications/token", json=credentials).raise_for_status().json()
        answer = self.airbyte.get(
            f"{API}/connections", headers={"Authorization": f"Bearer {token['access_token']}"}
        ).raise_for_status()
        return [connection["connectionId"] for connection in answer.json()["data"]]


def _command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("airbyte-events")), *arguments]

"""A listener in this process, on a real socket, and its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import anyio
import httpx
from anyio.abc import TaskGroup, TaskStatus
from pydantic import SecretStr

from airbyte_events.listener.assembly import Listener, assemble
from airbyte_events.listener.http.metrics import FRESH_SECONDS
from airbyte_events.listener.settings import InstanceSettings, Settings
from airbyte_events.simulator import Script, Simulator, serve_simulator
from airbyte_events.simulator.models import Job
from airbyte_events.store.base import EventStore
from airbyte_events.store.registry import store_location
from airbyte_events.web.server import serving

CLIENT_SECRET = "client-secret-0123456789abcdef"
API_TOKEN = "api-token-0123456789abcdef012345"
WEBHOOK_TOKEN = "webhook-token-0123456789abcdef01"
OPERATOR_TOKEN = "operator-token-0123456789abcdef0"
SECRETS = (CLIENT_SECRET, API_TOKEN, WEBHOOK_TOKEN)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def instance_of(airbyte_url: str, *, secret: str | None = None, **values: Any) -> InstanceSettings:
    """Return the settings of an Airbyte.

    :param secret: the client secret; without it there are no credentials.
    """
    if secret is not None:
        values |= {"client_id": "client", "client_secret": SecretStr(secret)}
    return InstanceSettings(airbyte_url=airbyte_url, **values)


def settings_of(instance: InstanceSettings | None = None, **given: Any) -> Settings:
    """Return the settings of a listener with a store in memory that hardly polls: webhooks report what it knows.

    :param instance: the one that is called default, unless ``instances`` are given.
    """
    values: dict[str, Any] = {
        "instances": {"default": instance},
        "store": store_location("memory:"),
        "api_tokens": (SecretStr(API_TOKEN),),
        "webhook_tokens": (SecretStr(WEBHOOK_TOKEN),),
        "poll_interval": 3600.0,
        "poll_interval_proven": 3600.0,
        "poll_interval_idle": 3600.0,
    }
    return Settings(**values | given)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A listener that is served.

    :param url: its address.
    """

    listener: Listener
    url: str

    @property
    def webhooks(self) -> str:
        """Return the URL for the webhooks of the instance that is called default."""
        return f"{self.url}/webhooks/default/{WEBHOOK_TOKEN}"

    @property
    def headers(self) -> dict[str, str]:
        """Return those that its API asks for."""
        return bearer(API_TOKEN)


@asynccontextmanager
async def serve_listener(
    settings: Settings,
    *,
    store: EventStore | None = None,
    port: int = 0,
    metrics_fresh: float = FRESH_SECONDS,
    **options: Any,
) -> AsyncIterator[Served]:
    """Serve a listener.

    :param store: replaces the one that the settings name.
    :param metrics_fresh: seconds for which a page of metrics is reused.
    :param options: the server's.
    """
    async with (
        assemble(settings, store=store, metrics_fresh=metrics_fresh) as listener,
        serving(listener.app, port=port, **{"timeout_graceful_shutdown": 2} | options) as url,
    ):
        try:
            yield Served(listener=listener, url=url)
        finally:
            listener.drain()


@dataclass(kw_only=True)
class Running:
    """A listener in a task of its own."""

    url: str
    stopping: anyio.Event
    stopped: anyio.Event

    @classmethod
    async def start(cls, tasks: TaskGroup, listener: AbstractAsyncContextManager[str]) -> Self:
        """:param listener: serves it, and returns its URL."""
        stopping, stopped = anyio.Event(), anyio.Event()

        async def run(task_status: TaskStatus[str]) -> None:
            async with listener as url:
                task_status.started(url)
                await stopping.wait()
            stopped.set()

        return cls(url=await tasks.start(run), stopping=stopping, stopped=stopped)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def stop(self) -> None:
        self.stopping.set()
        with anyio.fail_after(5):
            await self.stopped.wait()


@dataclass
class Installation:
    """A served listener, the simulated Airbyte behind it, and a client of its own that shows a token."""

    sim: Simulator
    served: Served
    http: httpx.AsyncClient

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *names: str,
        token: str | None = API_TOKEN,
        forward_urls: tuple[SecretStr, ...] = (),
        events: EventStore | None = None,
        metrics_fresh: float = FRESH_SECONDS,
        announces: bool = True,
        **given: Any,
    ) -> AsyncIterator[Self]:
        """:param names: of the instances, all of the same Airbyte.
        :param token: None shows none.
        :param events: the store, instead of the one in the settings.
        :param metrics_fresh: seconds for which a page of metrics is reused.
        :param announces: whether Airbyte sends its webhooks.
        :param given: settings of the listener.
        """
        async with serve_simulator(Simulator(client_id="client", client_secret=CLIENT_SECRET)) as sim:
            instance = instance_of(sim.url, secret=CLIENT_SECRET, forward_urls=forward_urls)
            settings = settings_of(instances=dict.fromkeys(names or ("default",), instance), **given)
            async with (
                serve_listener(settings, store=events, metrics_fresh=metrics_fresh) as served,
                httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=30) as http,
            ):
                if token is not None:
                    http.headers.update(bearer(token))
                if announces:
                    sim.workspace.set_webhook(served.webhooks)
                yield cls(sim, served, http)

    def start(self, job_type: str = "sync", script: Script | None = None) -> Job:
        return self.sim.world.start_job(self.sim.world.add_connection(script or Script.hanging()), job_type)

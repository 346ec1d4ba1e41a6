"""The machines: Airbyte, a listener that can be killed and started again, and a triggerer, likewise."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
from anyio.abc import TaskGroup
from pydantic import SecretStr

from airbyte_events.listener.assembly import Listener, assemble
from airbyte_events.listener.settings import InstanceSettings, Settings
from airbyte_events.simulator import Fault, Script, Simulator, simulator_app
from airbyte_events.simulator.models import Job
from airbyte_events.store.base import EventStore
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.registry import store_location
from airbyte_events.store.sqlite.store import SQLiteStore
from model.virtual.clock import Machine
from model.virtual.network import Host, Network
from model.virtual.program import Program
from model.virtual.secrets import API_TOKEN, CLIENT_SECRET, WEBHOOK_TOKEN, WEBHOOK_URL
from model.virtual.triggerer import Triggerer


class Airbyte(Program):
    """The simulated one, and when its jobs ended.

    :param sim: a simulator whose webhooks go to the listener.
    """

    def __init__(self, machine: Machine, tasks: TaskGroup, network: Network) -> None:
        super().__init__(machine, tasks)
        self.host = network.host("airbyte", machine)
        self.sim: Simulator = machine.run(self._make, network)
        self.sim.url = "http://airbyte"
        self.ended: dict[int, float] = {}
        """When each job ended, by the virtual clock."""
        announce = self.sim.world.on_end

        def note(job: Job) -> None:
            self.ended[job.id] = anyio.current_time()
            announce(job)

        self.sim.world.on_end = note

    @staticmethod
    def _make(network: Network) -> Simulator:
        return Simulator(
            client_id="client", client_secret=CLIENT_SECRET, webhook_url=WEBHOOK_URL, latency=0.01, transport=network
        )

    async def run(self, ready: Callable[[], None]) -> None:
        async with self.sim.running(), self.host.serving(simulator_app(self.sim)):
            ready()
            await anyio.sleep_forever()

    @property
    def jobs(self) -> list[Job]:
        return list(self.sim.world.jobs.values())

    def begin(self, type: str = "sync", script: Script | None = None) -> Job:
        """A job of a connection of its own; it runs until it is ended."""
        connection = self.machine.run(self.sim.world.add_connection, script or Script.hanging())
        return self.machine.run(self.sim.world.start_job, connection, type)

    def end(self, job: Job, status: str = "succeeded") -> None:
        if not job.terminal:
            self.machine.run(self.sim.world.end_job, job, status)

    def reads(self, job: Job) -> int:
        """Requests for that job alone that were answered."""
        return sum(request.url.path.endswith(f"/jobs/{job.id}") for request, _ in self.host.answered)

    def fault(self, kind: str, **values: Any) -> int:
        return self.sim.add_fault(Fault(kind=kind, **values)).id


class ListenerProcess(Program):
    """A listener, and what it keeps between two of its lives.

    :param make_store: called at each start.
    """

    def __init__(
        self, machine: Machine, tasks: TaskGroup, network: Network, make_store: Callable[[], EventStore]
    ) -> None:
        super().__init__(machine, tasks)
        self.host = network.host("listener", machine)
        self.stores: dict[str, EventStore] = {}
        """By epoch: the last one is the one in use."""
        self._network = network
        self._make_store = make_store
        self._settings = Settings(
            instances={
                "default": InstanceSettings(
                    airbyte_url="http://airbyte", client_id="client", client_secret=SecretStr(CLIENT_SECRET)
                )
            },
            store=store_location("memory:"),
            api_tokens=[API_TOKEN],
            webhook_tokens=[WEBHOOK_TOKEN],
        )
        self.listener: Listener | None = None

    @property
    def store(self) -> EventStore:
        return list(self.stores.values())[-1]

    async def run(self, ready: Callable[[], None]) -> None:
        store = self._make_store()
        async with assemble(self._settings, store=store, transport=self._network) as self.listener:
            self.stores.pop(store.epoch, None)
            self.stores[store.epoch] = store
            async with self.host.serving(self.listener.app):
                ready()
                await anyio.sleep_forever()

    async def stop(self) -> None:
        """End it in order: streams are told to go away."""
        if self.listener is not None and self.running:
            self.listener.drain()
            await anyio.sleep(0.1)
        await self.kill()


class VirtualStage:
    """All of them, started; each on a machine of its own."""

    def __init__(self, tasks: TaskGroup, make_store: Callable[[], EventStore], *, listens: bool) -> None:
        self.tasks = tasks
        self.network = Network()
        self.airbyte = Airbyte(Machine("airbyte"), tasks, self.network)
        self.listener = ListenerProcess(Machine("listener"), tasks, self.network, make_store)
        self.triggerer = Triggerer(Machine("triggerer"), tasks, self.network, listens=listens)

    @property
    def hosts(self) -> list[Host]:
        return [self.airbyte.host, self.listener.host]

    async def until(self, condition: Callable[[], bool], within: float) -> float:
        """Let time pass until it holds, looking ten times a second.

        :return: the seconds that it took.
        """
        began = anyio.current_time()
        while not condition():
            assert anyio.current_time() - began <= within, f"not within {within} s"
            await anyio.sleep(0.1)
        return anyio.current_time() - began

    async def acknowledged(self) -> list[bytes]:
        """Bodies of webhooks that were answered with a 2xx."""
        return [
            request.content
            for request, status in self.listener.host.answered
            if request.url.path.startswith("/webhooks/") and 200 <= status <= 299
        ]

    def forge(self, body: dict[str, Any]) -> None:
        """Somebody who knows the webhook's URL sends this."""
        self.tasks.start_soon(self._send, json.dumps(body).encode())

    async def _send(self, body: bytes) -> None:
        async with httpx.AsyncClient(transport=self.network, timeout=None) as http:
            with suppress(httpx.HTTPError):
                await http.post(WEBHOOK_URL, content=body)


def keeping(kind: str, folder: Path | None = None) -> Callable[[], EventStore]:
    """What a listener keeps from one life to the next.

    :param kind: ``kept``: the same store in memory; ``lost``: nothing; ``sqlite``: a file.
    """
    if kind == "sqlite":
        assert folder is not None
        return lambda: SQLiteStore(folder / "events.db")
    if kind == "lost":
        return MemoryStore
    store = MemoryStore()
    return lambda: store


@asynccontextmanager
async def staged(
    make_store: Callable[[], EventStore] | None = None, *, listens: bool = True, listener: bool = True
) -> AsyncIterator[VirtualStage]:
    """Everything started.

    :param make_store: see :func:`keeping`; in memory by default.
    :param listens: whether the triggerer is told of the listener.
    :param listener: whether that is started.
    """
    async with anyio.create_task_group() as tasks:
        stage = VirtualStage(tasks, make_store or keeping("kept"), listens=listens)
        await stage.airbyte.start()
        if listener:
            await stage.listener.start()
        await stage.triggerer.start()
        yield stage
        for program in (stage.triggerer, stage.listener, stage.airbyte):
            await program.kill()
        tasks.cancel_scope.cancel()
    for host in stage.hosts:
        assert host.failures == [], host.failures

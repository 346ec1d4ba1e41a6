"""The simulator, which connects its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx

from airbyte_events.airbyte.notification_kinds import SETTINGS, NotificationKind
from airbyte_events.simulator.api import PublicApi
from airbyte_events.simulator.capacity import LONGEST_WAIT, Capacity
from airbyte_events.simulator.control_models import NewNotification
from airbyte_events.simulator.faults import WEBHOOK_FAULTS, ArmedFault, Fault, Faults
from airbyte_events.simulator.internal_api import InternalApi
from airbyte_events.simulator.middleware import BASES, CONTROL, INTERNAL, Gate
from airbyte_events.simulator.models import CLOUD, NEWEST, Connection, Job, Refused, Release, sample_id
from airbyte_events.simulator.notification_bodies import SAMPLES, job_ended
from airbyte_events.simulator.scripts import Script
from airbyte_events.simulator.timers import Timers
from airbyte_events.simulator.tokens import Tokens
from airbyte_events.simulator.traffic import Traffic
from airbyte_events.simulator.webhooks import Delivery, Webhooks
from airbyte_events.simulator.world import World

_INTERNAL_CALLS = 100
"""Calls of the internal API in progress at a time: Airbyte does not limit them to five."""


class Simulator:
    """A simulated Airbyte. It is controlled in-process by its public parts, or by the control API.

    It runs while :meth:`running` is entered, by :func:`serve_simulator` or by the lifespan of :func:`simulator_app`
    under any ASGI server.

    :param webhook_url: the webhook URL of the first workspace, for every kind of notification.
    :param client_id: with ``client_secret``: the public API requires a token. Without: no token, and no token endpoint.
    :param client_secret: see ``client_id``.
    :param token_lifetime: the life of a token in seconds, whatever its ``expires_in`` says.
    :param simple_auth: refuse a wrong secret as ``abctl``'s simple authentication does, with 400, not as Keycloak: 401.
    :param admin: whether the credentials are an instance admin's: others get 403 for unknown ids.
    :param cloud: respond as Airbyte Cloud does, where nobody is an instance admin.
    :param release: of Airbyte, such as ``1.5``, or ``cloud``: workspaces have no ``notifications`` up to 1.5, lists of
        jobs without ``jobType`` no refreshes up to 2.0.0, and older releases fewer calls of the internal API.
    :param latency: seconds that each call of an API takes.
    :param max_calls: calls of the public API in progress at a time.
    :param connections: number of connections at the start; their ids are the same in every run.
    :param duration: seconds from creation to success, for connections without a script.
    :param capacity: jobs that run at a time, the others are queued; None: no limit.
    :param queue_limit: seconds in that queue, after which Airbyte cancels a job.
    :param transport: carries webhooks; sockets by default.
    :raises ValueError: if a value is out of range.
    """

    def __init__(
        self,
        *,
        webhook_url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        token_lifetime: float = 180.0,
        simple_auth: bool = False,
        admin: bool = True,
        cloud: bool = False,
        release: str = NEWEST,
        latency: float = 0.0,
        max_calls: int = 5,
        connections: int = 0,
        duration: float = 5.0,
        capacity: int | None = None,
        queue_limit: float = LONGEST_WAIT,
        faults: Iterable[Fault] = (),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if (client_id is None) != (client_secret is None):
            raise ValueError("a client id and a client secret go together")
        if token_lifetime <= 0 or max_calls < 1 or latency < 0 or connections < 0:
            raise ValueError("the token lifetime is above 0, max_calls 1 or more, latency and connections 0 or more")
        if (capacity is not None and capacity < 1) or queue_limit < 0:
            raise ValueError("the capacity is 1 or more, the queue limit 0 or more")
        cloud = cloud or release == CLOUD
        self.url = "http://127.0.0.1:8000"
        """Where it is served, without a trailing slash."""
        self.script = Script.lasting(duration)
        self.cloud = cloud
        self.timers = Timers()
        self.world = World(self.timers, Capacity(capacity, queue_limit))
        self.faults = Faults()
        self.traffic = Traffic()
        self.tokens = Tokens(client_id, client_secret, token_lifetime)
        self.webhooks = Webhooks(self.timers, self.faults, transport)
        self.world.on_end = self._announce
        self.workspace = self.world.add_workspace(id=sample_id("workspace", 1))
        if webhook_url is not None:
            self.workspace.set_webhook(webhook_url)
        for number in range(1, connections + 1):
            self.world.add_connection(self.script, id=sample_id("connection", number))
        admin, version = admin and not cloud, Release.parse(release)
        api = PublicApi(self.world, self.tokens, admin=admin, simple_auth=simple_auth, release=version)
        internal = InternalApi(self.world, self.tokens, self._try_webhook, admin=admin, release=version)
        self._routes = (*api.routes, *internal.routes)
        for fault in faults:
            self.add_fault(fault)
        shared = self.faults, self.traffic
        self.gate = Gate(api, BASES, *shared, latency=latency, max_calls=max_calls)
        """The ASGI application of the public API."""
        self.internal_gate = Gate(internal, [INTERNAL], *shared, latency=latency, max_calls=_INTERNAL_CALLS)
        """The ASGI application of the internal API."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the jobs and send webhooks while this is entered."""
        async with self.webhooks.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(self.timers.run)
            try:
                yield
            finally:
                self.gate.shutdown.set()
                self.internal_gate.shutdown.set()
                tasks.cancel_scope.cancel()

    def add_fault(self, fault: Fault) -> ArmedFault:
        """Activate a fault.

        :raises ValueError: if its route or kind of notification does not exist.
        """
        kinds = (*dict.fromkeys((*SETTINGS, *map(_sent_as, NotificationKind))), "raw")
        known = kinds if fault.kind in WEBHOOK_FAULTS else self._routes
        if not any(fault.applies(route) for route in known):
            raise ValueError(f"no route is called {fault.route!r}: {', '.join(known)}")
        return self.faults.add(fault)

    def notify(
        self, what: NewNotification, job: Job | None = None, connection: Connection | None = None
    ) -> list[Delivery]:
        """Send a notification now, true or not.

        :raises Refused: if the workspace has no URL for it.
        """
        sample = SAMPLES.get(what.kind)
        about = job.connection if job is not None else connection
        workspace = self.world.workspaces[about.workspace_id] if about is not None else self.workspace
        failed = what.kind == "text-only" and job is not None and job.status != "succeeded"
        kind = what.kind if sample is None else _sent_as(NotificationKind.FAILURE if failed else sample.kind)
        # A queued, test or made-up notification has no URL of its own.
        url = what.url or workspace.webhook_url(kind if kind in SETTINGS else "success")
        if url is None:
            raise Refused("state-conflict", f"workspace {workspace.id} has no webhook URL for {kind}: give a url")

        def compose() -> dict[str, Any] | str:
            if what.text is not None:
                return what.text
            if what.body is not None:
                return what.body
            assert sample is not None  # noqa: S101 -- without one there is a text or a body
            subject = job if sample.about == "job" else connection
            return sample.compose(subject, workspace, self._pages, what.tag)

        return self.webhooks.send(kind, url, compose)

    async def _try_webhook(self, sample: str, url: str) -> Delivery:
        """Send a test notification, and wait for its receiver's response."""
        delivery = self.notify(NewNotification(kind=sample, url=url))[0]
        await delivery.over.wait()
        return delivery

    def describe(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "api_url": self.url + BASES[1 if self.cloud else 0],
            "internal_api_url": self.url + INTERNAL,
            "control_url": self.url + CONTROL,
            "cloud": self.cloud,
            "token_required": self.tokens.required,
            "workspace_id": self.workspace.id,
        }

    @property
    def _pages(self) -> str:
        return "https://cloud.airbyte.com" if self.cloud else self.url

    def _announce(self, job: Job) -> None:
        """Send a completed job's webhook: only syncs have one, unless they were cancelled."""
        announced = next((kind for kind in NotificationKind if kind.status == job.status), None)
        if job.type != "sync" or announced is None:
            return
        kind = _sent_as(announced)
        workspace = self.world.workspaces[job.connection.workspace_id]
        url = workspace.webhook_url(kind)
        if url is not None:
            sent = self.webhooks.send(kind, url, lambda: job_ended(job, workspace, self._pages))
            job.deliveries.extend(sent)


def _sent_as(kind: NotificationKind) -> str:
    """Return what a workspace's settings call a kind, else its value."""
    return kind.settings[0] if kind.settings else kind.value

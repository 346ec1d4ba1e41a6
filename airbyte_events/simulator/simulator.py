"""The simulator as one object: its parts put together."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from airbyte_events.airbyte.notification_kinds import SETTINGS, NotificationKind
from airbyte_events.simulator.api import PublicApi
from airbyte_events.simulator.control_models import NewNotification
from airbyte_events.simulator.faults import WEBHOOK_FAULTS, ArmedFault, Fault, Faults
from airbyte_events.simulator.middleware import BASES, CONTROL, Gate
from airbyte_events.simulator.notification_bodies import SAMPLES, job_ended
from airbyte_events.simulator.scripts import Script
from airbyte_events.simulator.state import NEWEST, Connection, Job, Refused, Release, sample_id
from airbyte_events.simulator.timers import Timers
from airbyte_events.simulator.tokens import Tokens
from airbyte_events.simulator.traffic import Traffic
from airbyte_events.simulator.webhooks import Delivery, Webhooks
from airbyte_events.simulator.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import httpx


class Simulator:
    """A simulated Airbyte. Its parts are public: make things happen in-process by them, or by the control API.

    Nothing moves before :meth:`running` is entered. :func:`serve_simulator` enters it, and so does the lifespan of
    :func:`simulator_app` under any ASGI server.

    :param webhook_url: where the first workspace's notifications of every kind go.
    :param client_id: with ``client_secret``: the public API wants a token. Without: no token, and no token endpoint.
    :param client_secret: see ``client_id``.
    :param token_lifetime: how long a token holds, in seconds, whatever its ``expires_in`` says.
    :param simple_auth: refuse a wrong secret as ``abctl``'s simple authentication does, with 400, not as Keycloak: 401.
    :param admin: whether the credentials are an instance admin's: others are told 403 of whatever does not exist.
    :param cloud: answer as Airbyte Cloud does, where nobody is an instance admin.
    :param release: of Airbyte, such as ``1.5``: workspaces have no ``notifications`` up to that one, lists of jobs
        without ``jobType`` no refreshes up to 2.0.0.
    :param latency: seconds that each call of the public API takes, while it occupies one of ``max_calls`` places.
    :param max_calls: calls of the public API that are worked at at a time.
    :param connections: how many sample connections to begin with; their ids are the same in every run.
    :param duration: seconds from creation to success of a job whose connection has no script of its own.
    :param faults: what goes wrong from the start.
    :param seed: of the faults' dice.
    :param transport: what webhooks are sent by; sockets unless given.
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
        faults: Iterable[Fault] = (),
        seed: int | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if (client_id is None) != (client_secret is None):
            raise ValueError("a client id and a client secret go together")
        if token_lifetime <= 0 or max_calls < 1 or latency < 0 or connections < 0:
            raise ValueError("the token lifetime is above 0, max_calls 1 or more, latency and connections 0 or more")
        self.url = "http://127.0.0.1:8000"
        """Where it is served, without a trailing slash."""
        self.script = Script.lasting(duration)
        self.cloud = cloud
        self.timers = Timers()
        self.world = World(self.timers)
        self.faults = Faults(seed)
        self.traffic = Traffic()
        self.tokens = Tokens(client_id, client_secret, token_lifetime)
        self.webhooks = Webhooks(self.timers, self.faults, transport)
        self.world.on_end = self._announce
        self.workspace = self.world.add_workspace(id=sample_id("workspace", 1))
        if webhook_url is not None:
            self.workspace.set_webhook(webhook_url)
        for number in range(1, connections + 1):
            self.world.add_connection(self.script, id=sample_id("connection", number))
        api = PublicApi(
            self.world,
            self.tokens,
            admin=admin and not cloud,
            simple_auth=simple_auth,
            release=Release.parse(release),
        )
        self._routes = api.routes
        for fault in faults:
            self.add_fault(fault)
        self.gate = Gate(api, self.faults, self.traffic, latency=latency, max_calls=max_calls)
        """The ASGI application of the public API."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Play the jobs' scripts and send webhooks while this is entered."""
        async with self.webhooks.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(self.timers.run)
            try:
                yield
            finally:
                self.gate.hurry.set()
                tasks.cancel_scope.cancel()

    def add_fault(self, fault: Fault) -> ArmedFault:
        """Let this go wrong from now on.

        :raises ValueError: if it is for a route or a kind of notification that does not exist, so would never strike.
        """
        kinds = (*dict.fromkeys((*SETTINGS, *map(_sent_as, NotificationKind))), "raw")
        known = kinds if fault.kind in WEBHOOK_FAULTS else self._routes
        if not any(fault.applies(route) for route in known):
            raise ValueError(f"no route is called {fault.route!r}: {', '.join(known)}")
        return self.faults.add(fault)

    def notify(
        self, what: NewNotification, job: Job | None = None, connection: Connection | None = None
    ) -> list[Delivery]:
        """Send a notification now, whether or not it is true.

        :param job: that it is about, for the kinds that are about one.
        :param connection: likewise.
        :raises Refused: if it has nowhere to go.
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

    def describe(self) -> dict[str, Any]:
        """Where it is and what it wants."""
        return {
            "url": self.url,
            "api_url": self.url + BASES[1 if self.cloud else 0],
            "control_url": self.url + CONTROL,
            "cloud": self.cloud,
            "token_required": self.tokens.required,
            "workspace_id": self.workspace.id,
        }

    @property
    def _pages(self) -> str:
        return "https://cloud.airbyte.com" if self.cloud else self.url

    def _announce(self, job: Job) -> None:
        """Send the webhook that a job's end brings: only syncs have one, and only when nobody cancelled them."""
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

"""``airbyte-events simulate``."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

import anyio
import typer
from rich.console import Console
from rich.table import Table

from airbyte_events._utils import stdout
from airbyte_events.cli.options import decimal, flag, option, whole
from airbyte_events.cli.output import complain
from airbyte_events.cli.runner import INTERRUPTED, command
from airbyte_events.simulator.capacity import LONGEST_WAIT
from airbyte_events.simulator.faults import API_FAULTS, WEBHOOK_FAULTS, Fault
from airbyte_events.simulator.models import NEWEST
from airbyte_events.simulator.server import serve_simulator
from airbyte_events.simulator.simulator import Simulator

_SHOWN = 20
"""Connections listed for people; --json lists all."""


@command(
    "simulate",
    "  airbyte-events simulate",
    "In another terminal, a listener for it:",
    "  airbyte-events up --airbyte-url http://127.0.0.1:8000",
    "Every tenth webhook is lost:",
    "  airbyte-events simulate --fault lost:probability=0.1",
    codes={0: "stopped", 1: "the port is taken", 2: "wrong usage", INTERRUPTED: "Ctrl-C before it runs"},
)
def simulate(
    host: Annotated[
        str, option("ADDRESS", "Address to listen on. Everybody who reaches it controls the simulator.")
    ] = "127.0.0.1",
    port: Annotated[int, option("PORT", "Port to listen on; 0: a free one.", parse=whole(0, 65535))] = 8000,
    webhook_url: Annotated[
        str | None, option("URL", "Webhook URL of all notifications: a listener's /webhooks/INSTANCE/TOKEN.")
    ] = None,
    client_id: Annotated[
        str | None, option("ID", "Require access tokens, and issue them to this client. [default: no authentication]")
    ] = None,
    client_secret: Annotated[str | None, option("SECRET", "Secret of --client-id.")] = None,
    token_lifetime: Annotated[
        float,
        option(
            "SECONDS", "Lifetime of an access token. Its expires_in says 900, as Airbyte's does.", parse=decimal(0.001)
        ),
    ] = 180.0,
    simple_auth: Annotated[
        bool, flag("Refuse a wrong secret with 400, as abctl's simple authentication does.", "--simple-auth")
    ] = False,
    no_admin: Annotated[
        bool, flag("Respond to unknown ids with 403, as to users who are no instance admins.", "--no-admin")
    ] = False,
    cloud: Annotated[bool, flag("Respond as Airbyte Cloud does; implies --no-admin.", "--cloud")] = False,
    release: Annotated[
        str,
        option(
            "RELEASE",
            "Airbyte's release, such as 0.50, 1.0, 1.5 or 2.0, or cloud. Up to 1.5 the API has no notifications; "
            "up to 2.0 lists leave out refreshes; older releases have fewer calls of the internal API.",
            "--airbyte",
            "--release",
        ),
    ] = NEWEST,
    latency: Annotated[
        float, option("SECONDS", "Duration of each API call. Five are processed at a time.", parse=decimal(0))
    ] = 0.0,
    connections: Annotated[
        int, option("NUMBER", "Number of connections. Their ids are the same in every run.", parse=whole(0, 100_000))
    ] = 3,
    duration: Annotated[float, option("SECONDS", "Duration of a sync.", parse=decimal(0))] = 5.0,
    capacity: Annotated[
        int | None, option("NUMBER", "Number of jobs that run at a time; others are queued.", parse=whole(1))
    ] = None,
    queue_limit: Annotated[
        float, option("SECONDS", "Time in the queue after which Airbyte cancels a job.", parse=decimal(0))
    ] = LONGEST_WAIT,
    fault: Annotated[
        list[str] | None,
        option(
            "FAULT",
            "Fault to inject, such as lost:probability=0.1 or 'status:status=429,count=5,route=GET /jobs'. "
            f"Webhooks: {', '.join(WEBHOOK_FAULTS)}. API: {', '.join(API_FAULTS)}. May be repeated.",
        ),
    ] = None,
    json_output: Annotated[bool, flag("Write the addresses as a line of JSON.", "--json")] = False,
) -> int:
    """Simulate an Airbyte. It has Airbyte's public API, its internal API as far as this package uses it, and its
    webhooks, including their oddities. Its control API under /_simulator starts and completes jobs, injects faults, and
    lists requests. Ctrl-C stops it."""
    if webhook_url is not None and not webhook_url.startswith(("http://", "https://")):
        raise typer.BadParameter("a webhook URL begins with http:// or https://", param_hint="--webhook-url")
    try:
        simulator = Simulator(
            webhook_url=webhook_url,
            client_id=client_id,
            client_secret=client_secret,
            token_lifetime=token_lifetime,
            simple_auth=simple_auth,
            admin=not no_admin,
            cloud=cloud,
            release=release,
            latency=latency,
            connections=connections,
            duration=duration,
            capacity=capacity,
            queue_limit=queue_limit,
            faults=[_fault(text) for text in fault or ()],
        )
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc

    def say() -> None:
        facts = {
            **simulator.describe(),
            "client_id": client_id,
            "client_secret": client_secret,
            "connections": list(simulator.world.connections),
        }
        if json_output:
            stdout.say(json.dumps(facts))
        else:
            _introduce(simulator, webhook_url, client_id, client_secret)

    try:
        anyio.run(_serve, simulator, host, port, say)
    except OSError as exc:
        complain(f"can't listen on {host}:{port}: {exc.strerror or exc}; write another --host or --port")
        return 1
    return 0


def _fault(text: str) -> Fault:
    try:
        return Fault.parse(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--fault") from exc


async def _serve(simulator: Simulator, host: str, port: int, say: Callable[[], None]) -> None:
    # The receiver comes first: a signal during the start must not skip the cleanup.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with serve_simulator(simulator, host=host, port=port):
            say()
            async for _ in signals:
                return


def _introduce(simulator: Simulator, webhook_url: str | None, client_id: str | None, client_secret: str | None) -> None:
    facts = simulator.describe()
    ids = list(simulator.world.connections)
    rows = [
        ("API", facts["api_url"]),
        ("Control", facts["control_url"]),
        ("Workspace", facts["workspace_id"]),
        ("Client id", client_id or "none (no authentication)"),
        *([("Client secret", client_secret)] if client_secret else []),
        ("Webhooks to", _without_secrets(webhook_url) if webhook_url else "nowhere (see --webhook-url)"),
        *[("Connection", one) for one in ids[:_SHOWN]],
        *([("", f"and {len(ids) - _SHOWN} more: GET {facts['api_url']}/connections")] if len(ids) > _SHOWN else []),
    ]
    if not sys.stdout.isatty():
        stdout.say(*[f"{name}: {value}" if name else value for name, value in rows])
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold cyan", justify="right")
    table.add_column()
    for name, value in rows:
        table.add_row(name, str(value))
    console = Console()
    console.print("[bold]Simulated Airbyte[/] [dim](Ctrl-C stops it)[/]")
    console.print(table)


def _without_secrets(url: str) -> str:
    """Return scheme, host and port of a URL, whose path may contain a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"

"""``airbyte-events simulate``."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import anyio
import typer
from rich.console import Console
from rich.table import Table

from airbyte_events._utils import stdout
from airbyte_events.simulator.faults import API_FAULTS, WEBHOOK_FAULTS, Fault
from airbyte_events.simulator.server import serve_simulator
from airbyte_events.simulator.simulator import Simulator
from airbyte_events.simulator.state import NEWEST

if TYPE_CHECKING:
    from collections.abc import Callable

_SHOWN = 20
"""Sample connections listed for people; --json has them all."""


def simulate(
    host: Annotated[
        str, typer.Option(help="Address to listen on. Whoever reaches it controls the simulator.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    webhook_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where webhooks go, as if set on Airbyte's notifications page: a listener's /webhooks/INSTANCE/TOKEN.",
        ),
    ] = None,
    client_id: Annotated[
        str | None,
        typer.Option(help="Want access tokens, and give them to this client. Without it: no authentication."),
    ] = None,
    client_secret: Annotated[str | None, typer.Option(help="The secret that goes with --client-id.")] = None,
    token_lifetime: Annotated[
        float,
        typer.Option(min=0.001, metavar="SECONDS", help="How long a token holds. It claims 900 s: so does Airbyte."),
    ] = 180.0,
    simple_auth: Annotated[
        bool, typer.Option("--simple-auth", help="Refuse a wrong secret as abctl's simple authentication does: 400.")
    ] = False,
    no_admin: Annotated[
        bool, typer.Option("--no-admin", help="Answer as to a user who is no instance admin: 403 for what is unknown.")
    ] = False,
    cloud: Annotated[bool, typer.Option("--cloud", help="Answer as Airbyte Cloud, where nobody is an admin.")] = False,
    release: Annotated[
        str,
        typer.Option(
            help="Airbyte's release. Up to 1.5 the API has no notifications, up to 2.0 lists have no refreshes."
        ),
    ] = NEWEST,
    latency: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="How long each API call takes. Five are worked at at a time."),
    ] = 0.0,
    connections: Annotated[
        int, typer.Option(min=0, max=100_000, help="Sample connections, with the same ids in every run.")
    ] = 3,
    duration: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long a sync takes, from start to end.")
    ] = 5.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAULT",
            help="Something to go wrong, such as lost:probability=0.1 or 'status:status=429,count=5,route=GET /jobs'. "
            f"Webhooks: {', '.join(WEBHOOK_FAULTS)}. API: {', '.join(API_FAULTS)}. May be repeated.",
        ),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Say where it is as one line of JSON.")] = False,
) -> None:
    """Run a stand-in for Airbyte, to rehearse DAGs and listeners on.

    It has Airbyte's public API and webhooks, its oddities included, and an API under /_simulator to start and end jobs,
    break things and look at what was asked. Ctrl-C stops it.
    """
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
            faults=[Fault.parse(text) for text in fault or ()],
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
        typer.echo(f"can't listen on {host}:{port}: {exc.strerror or exc}; choose another --host or --port", err=True)
        raise typer.Exit(1) from exc


async def _serve(simulator: Simulator, host: str, port: int, say: Callable[[], None]) -> None:
    # The receiver comes first: a signal during the start must not kill what is half there.
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
        ("Client id", client_id or "none: no authentication"),
        *([("Client secret", client_secret)] if client_secret else []),
        ("Webhooks to", _without_secrets(webhook_url) if webhook_url else "nowhere: --webhook-url"),
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
    """The URL as far as it holds no token: scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"

"""``airbyte-events doctor``: checks the whole path from Airbyte to Airflow."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated

import anyio.to_thread
import typer
from rich.text import Text

from airbyte_events import __version__
from airbyte_events._utils import proxies
from airbyte_events.cli import options
from airbyte_events.cli.api_client import Address, open_listener
from airbyte_events.cli.doctor.airbyte import AirbyteChecks
from airbyte_events.cli.doctor.findings import Finding, Level, failure, ok, warning
from airbyte_events.cli.doctor.listener import ListenerChecks, check_store
from airbyte_events.cli.output import Output, status
from airbyte_events.cli.runner import run
from airbyte_events.cli.webhooks.backup import Backup, default_file
from airbyte_events.cli.webhooks.workspaces import ReceiverURLs
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings import Settings, load

ELSEWHERE = "airbyte_events.doctor"
"""Entry points of further checks: functions of Airflow connection ids that return (level, part, text, remedy)."""

HELP = (
    "Check the path from Airbyte to Airflow. Each fault comes with its remedy. Checks settings, store, listener and "
    "stream; Airbyte's address, credentials, permissions, clock and webhooks; and, where AIRFLOW_… variables are set, "
    "Airflow's versions and connections. It changes nothing, but posts a test to each webhook URL."
)
EPILOG = (
    "  airbyte-events doctor",
    "The failures, for a program:",
    "  airbyte-events doctor --json | jq '.findings[] | select(.level == \"failure\")'",
    "On an Airflow machine, with the connection that tasks use:",
    "  airbyte-events doctor --airflow-conn airbyte_production",
    "Exit codes: 0 no failures, warnings or not; 1 failures; 2 wrong usage; 130 after Ctrl-C.",
)


def doctor(
    airflow: Annotated[
        bool | None,
        typer.Option("--airflow/--no-airflow", help="Check Airflow, too. [default: if an AIRFLOW_… variable is set]"),
    ] = None,
    airflow_conn: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Airflow connection to an Airbyte. May be repeated.")
    ] = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> None:
    output = Output(json=json)
    if airflow is None:
        airflow = bool(airflow_conn) or any(name.startswith("AIRFLOW_") for name in os.environ)

    async def work() -> int:
        found = []
        async for finding in _examine(config, listener, airflow_conn or (), airflow=airflow):
            found.append(finding)
            if not json:
                _show(output, finding)
        count = {level: sum(each.level is level for each in found) for level in Level}
        broken = count[Level.FAILURE] > 0
        if json:
            findings = [
                {"level": each.level.value, "part": each.part, "text": each.text, "remedy": each.remedy or None}
                for each in found
            ]
            output.object({"version": __version__, "findings": findings, "broken": broken})
        else:
            output.line(f"{count[Level.FAILURE]} failures, {count[Level.WARNING]} warnings, {count[Level.OK]} ok")
        return 1 if broken else 0

    run(work)


def _show(output: Output, finding: Finding) -> None:
    level = status(finding.level.value)
    level.pad_right(len(Level.FAILURE.value) - len(level))
    output.line(level, f"{finding.part}: {finding.text}")
    if finding.remedy:
        output.line(" " * len(Level.FAILURE.value), Text(f"-> {finding.remedy}", style="bold"))


async def _examine(
    config: Path | None, listener: str | None, airflow_conns: Iterable[str], *, airflow: bool
) -> AsyncIterator[Finding]:
    try:
        settings = load(config, listens=False)
        address = Address.of(settings, listener)
    except SettingsError as exc:
        yield failure("settings", str(exc), "airbyte-events serve --help lists the settings")
    else:
        yield _settings(settings)
        try:
            proxies.Environment.read()
        except SettingsError as exc:
            yield failure("proxies", str(exc), "correct the variable: the listener does not start with it")
        else:
            async for finding in _path(settings, address):
                yield finding
    if airflow:
        async for finding in _airflow(list(airflow_conns)):
            yield finding


def _settings(settings: Settings) -> Finding:
    if settings.instances:
        return ok("settings", f"valid; Airbytes: {', '.join(settings.instances)}")
    return warning(
        "settings",
        "they have no Airbyte, so only the listener is checked",
        "give this command the listener's settings (AIRBYTE_EVENTS_AIRBYTE_URL, … or --config)",
    )


async def _path(settings: Settings, address: Address) -> AsyncIterator[Finding]:
    async with open_listener(address) as api:
        checks = ListenerChecks(api, settings.instances.keys())
        async for finding in check_store(settings.store):
            yield finding
        async for finding in checks.run():
            yield finding
        tokens = tuple(token.get_secret_value() for token in settings.webhook_tokens)
        for name, instance in settings.instances.items():
            try:
                digests = Backup(default_file(name), instance.airbyte_url).digests
            except SettingsError:
                digests = frozenset()
            receiver = ReceiverURLs(instance=name, tokens=tokens, base=settings.public_url, digests=digests)
            async for finding in AirbyteChecks(name, instance, receiver, api if checks.authorised else None).run():
                yield finding


async def _airflow(conn_ids: list[str]) -> AsyncIterator[Finding]:
    for found in entry_points(group=ELSEWHERE):
        try:
            lines = await anyio.to_thread.run_sync(_examined, found, conn_ids)
        except ImportError as exc:
            yield warning("Airflow", f"can't be imported ({exc})", "run this command with Airflow's Python")
            continue
        for level, part, text, remedy in lines:
            yield Finding(level=Level(level), part=part, text=text, remedy=remedy)


def _examined(found: EntryPoint, conn_ids: list[str]) -> list[tuple[str, str, str, str]]:
    # Airflow logs to standard output, which is for findings only.
    with contextlib.redirect_stdout(sys.stderr):
        lines: list[tuple[str, str, str, str]] = found.load()(conn_ids)
    return lines

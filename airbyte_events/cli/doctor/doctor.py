"""``airbyte-events doctor``: checks the whole path from Airbyte to Airflow."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from dataclasses import asdict
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated

import anyio.to_thread
from rich.text import Text

from airbyte_events import __version__
from airbyte_events._utils import proxies
from airbyte_events.cli import options
from airbyte_events.cli.api_client import Address, open_listener
from airbyte_events.cli.doctor.airbyte import check_airbyte
from airbyte_events.cli.doctor.findings import Finding, Level, Report
from airbyte_events.cli.doctor.listener import check_listener, check_store
from airbyte_events.cli.options import flag, option
from airbyte_events.cli.output import Output, counted, status
from airbyte_events.cli.runner import command
from airbyte_events.cli.webhooks.backup import Backup, default_file
from airbyte_events.cli.webhooks.workspaces import ReceiverURLs
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings import load

ELSEWHERE = "airbyte_events.doctor"
"""Entry points of further checks: functions of Airflow connection ids that return (level, part, text, remedy)."""


@command(
    "doctor",
    "  airbyte-events doctor",
    "The failures, for a program:",
    "  airbyte-events doctor --json | jq '.findings[] | select(.level == \"failure\")'",
    "On an Airflow machine, with the connection that tasks use:",
    "  airbyte-events doctor --airflow-conn airbyte_production",
    codes={0: "no failures, warnings or not", 1: "failures", 2: "wrong usage"},
)
async def doctor(
    airflow: Annotated[
        bool | None, flag("Check Airflow, too. [default: if an AIRFLOW_… variable is set]", "--airflow/--no-airflow")
    ] = None,
    airflow_conn: Annotated[
        list[str] | None, option("ID", "Airflow connection to an Airbyte. May be repeated.")
    ] = None,
    listener: options.ListenerURL = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> int:
    """Check the path from Airbyte to Airflow. Each fault comes with its remedy. Checks settings, store, listener and
    stream; Airbyte's address, credentials, permissions, clock and webhooks; and, where AIRFLOW_… variables are set,
    Airflow's versions and connections. It changes nothing, but sends a test to each webhook URL, by Airbyte itself if
    possible."""
    output = Output(json=json)
    asked = bool(airflow or airflow_conn)
    if airflow is None:
        airflow = bool(airflow_conn) or any(name.startswith("AIRFLOW_") for name in os.environ)
    report = Report(partial(show, output))
    await _check(report, config, listener)
    if airflow:
        await _check_airflow(report, airflow_conn or [], Level.FAILURE if asked else Level.WARNING)
    count = Counter(each.level for each in report.findings)
    broken = count[Level.FAILURE] > 0
    if json:
        findings = [asdict(each) | {"remedy": each.remedy or None} for each in report.findings]
        output.object({"version": __version__, "findings": findings, "broken": broken})
    else:
        failures, warnings = counted(count[Level.FAILURE], "failure"), counted(count[Level.WARNING], "warning")
        output.line(f"{failures}, {warnings}, {count[Level.OK]} ok")
    return 1 if broken else 0


def show(output: Output, finding: Finding) -> None:
    if output.json:
        return
    level = status(finding.level.value)
    level.pad_right(len(Level.FAILURE.value) - len(level))
    output.prose(level, f"{finding.part}: {finding.text}")
    if finding.remedy:
        output.prose(Text(" " * len(Level.FAILURE.value)), f"-> {finding.remedy}", "bold")


async def _check(report: Report, config: Path | None, listener: str | None) -> None:
    about = report.about("settings")
    try:
        settings = load(config, listens=False)
        address = Address.of(settings, listener)
    except SettingsError as exc:
        about.failure(str(exc), "airbyte-events serve --help lists the settings")
        return
    if settings.instances:
        about.ok(f"valid; Airbytes: {', '.join(settings.instances)}")
    else:
        about.warning(
            "they have no Airbyte, so only the listener is checked",
            "run airbyte-events up, or give this command the listener's settings (AIRBYTE_EVENTS_AIRBYTE_URL, … or "
            "--config)",
        )
    try:
        proxies.Environment.read()
    except SettingsError as exc:
        report.about("proxies").failure(str(exc), "correct the variable: the listener does not start with it")
        return
    async with open_listener(address) as api:
        await check_store(report.about("store"), settings.store)
        authorised = await check_listener(report, api, settings.instances.keys())
        for name, instance in settings.instances.items():
            try:
                digests = Backup(default_file(name), instance.airbyte_url).digests
            except SettingsError:
                digests = frozenset()
            receiver = ReceiverURLs.of(settings, name, settings.public_url, digests)
            inbox, several = api if authorised else None, len(settings.instances) > 1
            await check_airbyte(report, name, instance, receiver, inbox, several=several)


async def _check_airflow(report: Report, conn_ids: list[str], missing: Level) -> None:
    """:param missing: the level of an Airflow that can't be imported: nothing of it was checked."""
    for found in entry_points(group=ELSEWHERE):
        try:
            lines = await anyio.to_thread.run_sync(_examine, found, conn_ids)
        except ImportError as exc:
            report.add(
                Finding(missing, "Airflow", f"can't be imported ({exc})", "run this command with Airflow's Python")
            )
            continue
        for level, part, text, remedy in lines:
            report.add(Finding(Level(level), part, text, remedy))


def _examine(found: EntryPoint, conn_ids: list[str]) -> list[tuple[str, str, str, str]]:
    # Airflow logs to standard output, which is for findings only.
    with contextlib.redirect_stdout(sys.stderr):
        lines: list[tuple[str, str, str, str]] = found.load()(conn_ids)
    return lines

"""The commands of the command line."""

from __future__ import annotations

import sys
from collections.abc import Collection
from textwrap import TextWrapper
from typing import Annotated

import typer
from rich.markup import escape

from airbyte_events import __version__
from airbyte_events._utils import stdout
from airbyte_events.cli import jobs, notify, replay, serve, simulate, store, tail, trigger, up
from airbyte_events.cli.doctor import doctor
from airbyte_events.cli.output import complain
from airbyte_events.cli.runner import Command, exit_codes
from airbyte_events.cli.webhooks import samples, webhooks
from airbyte_events.errors import AirbyteEventsError, AirbyteUnreachable, SettingsError, Unauthorized

_ACCESS = (AirbyteUnreachable, Unauthorized)
"""The faults of the settings that name an Airbyte, or of the way to it."""

_WIDTH = 76
"""Columns of the examples below a command's help, which is indented by 2."""

_EPILOG = (
    "Run a demo, without Airbyte and Airflow:",
    "  airbyte-events demo",
    "Set up a listener for your Airbyte. It asks for what it needs, and keeps it for all commands:",
    "  airbyte-events up",
    "In another terminal, check the whole path, list jobs, and follow completions:",
    "  airbyte-events doctor",
    "  airbyte-events jobs",
    "  airbyte-events tail --ended",
    "Simulate an Airbyte:",
    "  airbyte-events simulate --help",
    "Output in a pipe is plain. NO_COLOR turns colours off. --json writes JSON.",
)


def run() -> int:
    """Run the command line with the arguments of this process."""
    stdout.ensure()
    try:
        application(rich=sys.stdout.isatty())(prog_name="airbyte-events")
    except AirbyteEventsError as exc:
        remedy = "; airbyte-events doctor checks Airbyte's address and credentials" if isinstance(exc, _ACCESS) else ""
        complain(" ".join(str(exc).split()) + remedy)
        return 2 if isinstance(exc, SettingsError) else 1
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    return 0


def application(*, rich: bool) -> typer.Typer:
    """Return the command line.

    :param rich: whether help and usage errors are coloured and framed.
    """
    app = _group(rich, name="airbyte-events", help="Stream Airbyte job events to Airflow: webhooks instead of polling.")
    added: list[Command] = []

    def add(group: typer.Typer, *commands: Command) -> None:
        added.extend(commands)
        for each in commands:
            group.command(each.name, help=each.help, epilog=_lines(rich, *each.epilog))(each.run)

    def add_group(name: str, text: str, epilog: Collection[str], *commands: Command) -> None:
        group = _group(rich)
        add(group, *commands)
        app.add_typer(group, name=name, help=text, epilog=_lines(rich, *epilog, exit_codes(commands)))

    add(app, up.up, serve.serve, tail.tail)
    known = _group(rich, invoke_without_command=True, no_args_is_help=False)
    known.callback()(jobs.jobs.run)
    add(known, jobs.show)
    app.add_typer(known, name="jobs", help=jobs.jobs.help, epilog=_lines(rich, *jobs.jobs.epilog))
    add(app, trigger.trigger, replay.replay)
    hooks = (webhooks.install, webhooks.show_status, samples.send_samples, webhooks.uninstall)
    add_group("webhooks", webhooks.HELP, webhooks.EPILOG, *hooks)
    add_group("notify", notify.HELP, notify.EPILOG, notify.list_targets, notify.send_test)
    add(app, doctor.doctor)
    add_group("store", store.HELP, store.EPILOG, store.migrate)
    add(app, serve.demo, simulate.simulate)
    epilog = (*_EPILOG, exit_codes([*added, jobs.jobs]))
    app.callback(epilog=_lines(rich, *epilog))(_about)
    return app


def _group(rich: bool, *, no_args_is_help: bool = True, **words: object) -> typer.Typer:
    return typer.Typer(
        no_args_is_help=no_args_is_help,
        rich_markup_mode="rich" if rich else None,
        # Its tracebacks can show local variables, which may be secrets.
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **words,  # type: ignore[arg-type]
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"airbyte-events {__version__}")
        raise typer.Exit


def _about(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _lines(rich: bool, *lines: str) -> str:
    # Both kinds of help would join the lines to one paragraph.
    if rich:
        return "\n\n".join(map(escape, lines))
    text = TextWrapper(_WIDTH, break_long_words=False, break_on_hyphens=False)
    command = TextWrapper(_WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return "\b\n" + "\n".join((command if line.startswith(" ") else text).fill(line) for line in lines)

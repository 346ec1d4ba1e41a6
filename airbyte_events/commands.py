"""The commands of the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from airbyte_events import __version__
from airbyte_events.errors import AirbyteEventsError, SettingsError
from airbyte_events.settings import load
from airbyte_events.settings_reference import reference
from airbyte_events.simulator.cli import simulate

_EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage or settings."


def run() -> int:
    """Run the command line with the arguments of this process.

    :return: the exit code.
    """
    try:
        application(rich=sys.stdout.isatty())(prog_name="airbyte-events")
    except AirbyteEventsError as exc:
        sys.stderr.write(f"airbyte-events: {' '.join(str(exc).split())}\n")
        return 2 if isinstance(exc, SettingsError) else 1
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    return 0


def application(*, rich: bool) -> typer.Typer:
    """The command line.

    :param rich: whether help and usage errors are coloured and framed.
    """
    app = typer.Typer(
        name="airbyte-events",
        help="Tells Airflow when an Airbyte job ends: one stream of job events, from Airbyte's webhooks and its API.",
        epilog=_lines(
            rich,
            "See it work, without Airbyte and Airflow:",
            "  airbyte-events demo",
            "Listen for your Airbyte:",
            "  AIRBYTE_EVENTS_AIRBYTE_URL=http://localhost:8000 airbyte-events serve",
            "Rehearse with a stand-in for Airbyte:",
            "  airbyte-events simulate --help",
            _EXIT_CODES,
        ),
        no_args_is_help=True,
        rich_markup_mode="rich" if rich else None,
        # Its tracebacks can show local variables, and those are secrets at times.
        pretty_exceptions_enable=False,
    )
    app.callback()(_about)
    commands: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
        ("serve", serve, {"help": _SERVE, "epilog": _lines(rich, *_serve_epilog())}),
        (
            "demo",
            demo,
            {
                "help": _DEMO,
                "epilog": _lines(rich, "  airbyte-events demo", "  airbyte-events demo --json | jq .", _EXIT_CODES),
            },
        ),
        ("simulate", simulate, {}),
    ]
    for name, command, words in commands:
        app.command(name, **words)(command)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"airbyte-events {__version__}")
        raise typer.Exit


def _about(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


_SERVE = (
    "Listen for the ends of Airbyte's jobs. Takes its webhooks, asks its API, and tells whoever waits. "
    "Ends on SIGTERM or Ctrl-C, after what is under way; a second one ends it at once."
)


def serve(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings in a TOML file. [AIRBYTE_EVENTS_CONFIG]")
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where to listen. [AIRBYTE_EVENTS_HOST, else 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="0 for a free one. [AIRBYTE_EVENTS_PORT, else 8484]")
    ] = None,
) -> None:
    from airbyte_events.listener import run as listen

    raise typer.Exit(listen(load(config, host=host, port=port)))


_DEMO = (
    "Show it work, in seconds. Starts a stand-in for Airbyte, a listener and a client of its feed on loopback. "
    "Syncs are run and their ends followed from Airbyte to the client, in milliseconds; nothing is left running."
)


def demo(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
) -> None:
    from airbyte_events.demo import run as show

    raise typer.Exit(show(as_json=json))


def _serve_epilog() -> list[str]:
    lines = [
        "One Airbyte by environment variables:",
        "  AIRBYTE_EVENTS_AIRBYTE_URL=http://localhost:8000 airbyte-events serve",
        "Several, in a file:",
        "  airbyte-events serve --config airbyte-events.toml",
        "Settings, as environment variables or in lower case and without AIRBYTE_EVENTS_ in the file, there with a "
        "table [instances.NAME] for each Airbyte:",
    ]
    for setting in reference():
        files = " (or _FILE)" if setting.secret else ""
        lines.append(f"  {setting.variable}{files}  {setting.meaning}".replace("`", ""))
    return [*lines, _EXIT_CODES]


def _lines(rich: bool, *lines: str) -> str:
    # Both kinds of help would make one paragraph of them, and each has its own way to be told not to.
    return "\n\n".join(map(escape, lines)) if rich else "\b\n" + "\n".join(lines)

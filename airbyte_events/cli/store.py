"""The commands of ``airbyte-events store``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, TextIO

import anyio
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from airbyte_events._utils.printable import dumps, shown
from airbyte_events.errors import SettingsError, StoreError
from airbyte_events.listener.settings import Settings, StoreLocation, load
from airbyte_events.store import maintenance
from airbyte_events.store.base import EventStore
from airbyte_events.store.retention import Retention

KINDS = {"event": "events", "job": "jobs", "notification": "notifications", "delivery": "deliveries", "value": "values"}

_StoreOption = Annotated[str | None, typer.Option("--store", metavar="URL", help="The store. [AIRBYTE_EVENTS_STORE]")]
_ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings in a TOML file. [AIRBYTE_EVENTS_CONFIG]")
]
_JSONOption = Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")]

HELP = "Look after the store: verify, compact, export, import, move it."


def group(*, rich: bool) -> typer.Typer:
    """The commands.

    :param rich: whether help is coloured and framed.
    """
    app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich" if rich else None, pretty_exceptions_enable=False)
    for name, command, text in (
        ("check", check, _CHECK),
        ("compact", compact, _COMPACT),
        ("export", export, _EXPORT),
        ("import", import_, _IMPORT),
        ("migrate", migrate, _MIGRATE),
    ):
        app.command(name, help=text)(command)
    return app


_CHECK = (
    "Verify that a store is whole: the database's own structures, sequences without gaps, one end per job, states that "
    "agree with the log, bodies as they came. The store may be in use meanwhile. Exits with 1 if there are faults."
)


def check(store: _StoreOption = None, config: _ConfigOption = None, json: _JSONOption = False) -> None:
    settings = load(config, store=store, listens=False)

    async def run() -> None:
        async with _open(settings.store, read_only=True) as opened:
            with _progress("verifying", await _records(opened)) as advance:
                found = await maintenance.verify(opened, advance)
            faults = [*found.faults, *([f"and {found.untold} more faults"] if found.untold else [])]
            _say(json, _counts(found.records) | {"faults": faults})
        raise typer.Exit(1 if faults else 0)

    anyio.run(run)


_COMPACT = (
    "Remove what is older or more than the settings keep, and give the space back. Nobody may use the store meanwhile, "
    "and it takes as much space again until it is done."
)


def compact(store: _StoreOption = None, config: _ConfigOption = None, json: _JSONOption = False) -> None:
    settings = load(config, store=store, listens=False)

    async def run() -> None:
        async with _open(settings.store) as opened:
            before = (await opened.stats()).bytes
            with _progress("compacting", None):
                pruned = await _retention(opened, settings).prune()
                await opened.compact()
            after = (await opened.stats()).bytes
        removed = {"removed_events": pruned.events, "removed_notifications": pruned.notifications}
        _say(json, removed | {"bytes_before": before, "bytes_after": after})

    anyio.run(run)


_EXPORT = (
    "Write all that a store holds to a new file of JSON lines, or to standard output. The store may be in use: what "
    "counts is what was in it when the export began. Notifications are in the file as they came: keep it as safe as "
    "the store."
)


def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A new file; - for standard output.")],
    store: _StoreOption = None,
    config: _ConfigOption = None,
    json: _JSONOption = False,
) -> None:
    settings = load(config, store=store, listens=False)

    async def run() -> None:
        async with _open(settings.store, read_only=True) as opened:
            with _written(file) as stream, _progress("exporting", await _records(opened)) as advance:
                count = await maintenance.write(opened, stream, advance)
            _say(json, _counts(count) | {"epoch": opened.epoch, "head": await opened.head()}, error=file == "-")

    anyio.run(run)


_IMPORT = (
    "Fill an empty store from an export. Whoever follows the events goes on where they were: sequences and ids stay as "
    "they are."
)


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="An export; - for standard input.")],
    new_log: Annotated[
        bool,
        typer.Option(
            "--new-log",
            help="For a backup: clients have seen later events than it has, and begin anew instead of going on.",
        ),
    ] = False,
    store: _StoreOption = None,
    config: _ConfigOption = None,
    json: _JSONOption = False,
) -> None:
    settings = load(config, store=store, listens=False)

    async def run() -> None:
        with _readable(file) as stream:
            async with _open(settings.store, new=True) as opened:
                with _progress("importing", None) as advance:
                    count = await maintenance.read(opened, stream, advance, new_log=new_log)
                _say(json, _counts(count) | {"epoch": opened.epoch, "head": await opened.head()})

    anyio.run(run)


_MIGRATE = (
    "Move a store to another, empty one, such as from a SQLite file to PostgreSQL, or back. Cursors stay valid. Stop "
    "every listener first, and start it with the new store. The old one stays as it is."
)


def migrate(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Such as sqlite:////var/lib/airbyte-events/events.db.")],
    target: Annotated[
        str | None, typer.Argument(metavar="TO", help="Leave it out if it holds a password. [AIRBYTE_EVENTS_STORE]")
    ] = None,
    config: _ConfigOption = None,
    json: _JSONOption = False,
) -> None:
    before = _location("FROM", source)
    after = load(config, listens=False).store if target is None else _location("TO", target)

    async def run() -> None:
        async with _open(before) as old, _open(after, new=True) as new:
            with _progress("moving", await _records(old)) as advance:
                count = await maintenance.move(old, new, advance)
            _say(json, _counts(count) | {"epoch": new.epoch, "head": await new.head()})

    anyio.run(run)


def _location(name: str, url: str) -> StoreLocation:
    try:
        return StoreLocation.parse(url)
    except ValueError as exc:
        raise SettingsError(f"{name}: {exc}; for example sqlite:////var/lib/airbyte-events/events.db") from None


@contextlib.asynccontextmanager
async def _open(location: StoreLocation, *, read_only: bool = False, new: bool = False) -> AsyncIterator[EventStore]:
    """:param read_only: beside whoever uses it.
    :param new: it need not be there yet.
    """
    if location.kind == "memory":
        raise SettingsError("a store in memory is gone with its process; for example --store sqlite:///events.db")
    if location.path is not None and not new and not location.path.is_file():
        raise StoreError(f"there is no store {location.path}")
    async with location.store(read_only=read_only) as store:
        yield store


def _retention(store: EventStore, settings: Settings) -> Retention:
    return Retention(store, age=timedelta(days=settings.retain_days), events=settings.retain_events)


async def _records(store: EventStore) -> int:
    stats = await store.stats()
    return stats.events + stats.jobs + stats.notifications


@contextlib.contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[], object]]:
    """Show on a terminal how far it is."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield partial(progress.advance, task)


@contextlib.contextmanager
def _written(file: str) -> Iterator[TextIO]:
    if file == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise StoreError(f"{file} is there already: name a new file") from None
    except OSError as exc:
        raise StoreError(f"can't write {file}: {exc.strerror}") from exc
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(descriptor)
    except BaseException as exc:
        Path(file).unlink(missing_ok=True)
        if isinstance(exc, OSError):
            raise StoreError(f"can't write {file}: {exc.strerror}") from exc
        raise


@contextlib.contextmanager
def _readable(file: str) -> Iterator[TextIO]:
    if file == "-":
        yield sys.stdin
        return
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(file).open(encoding="utf-8", errors="replace"))
        except OSError as exc:
            raise StoreError(f"can't read {file}: {exc.strerror}") from exc
        yield stream


def _counts(records: Mapping[str, int]) -> dict[str, object]:
    return {name: records.get(kind, 0) for kind, name in KINDS.items()}


def _say(json: bool, result: Mapping[str, object], *, error: bool = False) -> None:
    """:param error: on standard error, since standard output has the data."""
    stream = sys.stderr if error else sys.stdout
    if json:
        stream.write(dumps(result, ascii=True) + "\n")
        return
    faults = result.get("faults")
    lines = {name.replace("_", " "): value for name, value in result.items() if name != "faults"}
    if stream.isatty():
        table = Table(show_header=False, box=None)
        table.add_column(style="bold")
        table.add_column(justify="right")
        for name, value in lines.items():
            table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
        Console(file=stream).print(table)
    else:
        width = max(map(len, lines))
        stream.writelines(f"{name:{width}}  {value}\n" for name, value in lines.items())
    if isinstance(faults, list):
        stream.writelines(f"fault: {shown(str(fault))}\n" for fault in faults)
        stream.write(f"{len(faults)} faults\n" if faults else "no fault was found\n")

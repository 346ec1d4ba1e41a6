"""``airbyte-events store migrate``: move a store to another one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from airbyte_events._utils.printable import dumps
from airbyte_events.errors import SettingsError, StoreError
from airbyte_events.listener.settings import load
from airbyte_events.store import migration
from airbyte_events.store.base import MovableStore
from airbyte_events.store.location import StoreLocation
from airbyte_events.store.registry import store_location

HELP = "Move the store to another database."

_MIGRATE = (
    "Move a store to another, empty one, such as from a SQLite file to PostgreSQL, or back. Cursors stay valid. Stop "
    "every listener first, and start it with the new store. The old one stays as it is. Rows that can't be read are "
    "logged and skipped."
)

_KINDS = ("events", "jobs", "notifications", "deliveries", "values")


def group(*, rich: bool) -> typer.Typer:
    """Return the commands of ``store``.

    :param rich: whether help is coloured and framed.
    """
    app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich" if rich else None, pretty_exceptions_enable=False)
    app.command("migrate", help=_MIGRATE)(migrate)
    return app


def migrate(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Such as sqlite:////var/lib/airbyte-events/events.db.")],
    target: Annotated[
        str | None, typer.Argument(metavar="TO", help="Leave it out if it holds a password. [AIRBYTE_EVENTS_STORE]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings in a TOML file. [AIRBYTE_EVENTS_CONFIG]")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    before = _location("FROM", source)
    if before.file is not None and not before.file.is_file():
        raise StoreError(f"there is no store {before.file}")
    after = load(config, listens=False).store if target is None else _location("TO", target)

    async def run() -> None:
        async with _open(before) as old, _open(after) as new:
            stats = await old.stats()
            with _progress("moving", stats.events + stats.jobs + stats.notifications) as advance:
                count = await migration.migrate(old, new, advance)
            skipped = sum(old.unreadable.values())
            result = {kind: count[kind] for kind in _KINDS}
            _write(json, result | {"unreadable": skipped, "epoch": new.epoch, "head": await new.head()})

    anyio.run(run)


def _location(name: str, url: str) -> StoreLocation:
    try:
        return store_location(url)
    except ValueError as exc:
        raise SettingsError(f"{name}: {exc}; for example sqlite:////var/lib/airbyte-events/events.db") from None


@contextlib.asynccontextmanager
async def _open(location: StoreLocation) -> AsyncIterator[MovableStore]:
    store = location.store()
    if not isinstance(store, MovableStore):
        raise SettingsError(f"{location} can't be moved: it ends with its process; for example sqlite:///events.db")
    async with store:
        yield store


@contextlib.contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    console = Console(stderr=True)
    if not console.is_terminal:  # rich before 14.3 writes an empty line even if it is disabled
        yield lambda count: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield partial(progress.advance, progress.add_task(what, total=total))


def _write(json: bool, result: Mapping[str, object]) -> None:
    if json:
        sys.stdout.write(dumps(result, ascii=True) + "\n")
    else:
        width = max(map(len, result))
        sys.stdout.writelines(f"{name:{width}}  {value}\n" for name, value in result.items())

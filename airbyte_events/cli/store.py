"""``airbyte-events store migrate``: move a store to another one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from airbyte_events.cli import options
from airbyte_events.cli.output import Output
from airbyte_events.cli.runner import command
from airbyte_events.errors import SettingsError, StoreError
from airbyte_events.listener.settings import load
from airbyte_events.store import migration
from airbyte_events.store.base import MovableStore
from airbyte_events.store.location import StoreLocation
from airbyte_events.store.registry import store_location

HELP = "Move the store to another database."
EPILOG = ("  airbyte-events store migrate sqlite:////var/lib/airbyte-events/events.db",)

_KINDS = ("events", "jobs", "notifications", "deliveries", "values")


@command("migrate", "To the store of AIRBYTE_EVENTS_STORE:", *EPILOG)
async def migrate(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Such as sqlite:////var/lib/airbyte-events/events.db.")],
    target: Annotated[
        str | None, typer.Argument(metavar="TO", help="Leave it out if it holds a password. [AIRBYTE_EVENTS_STORE]")
    ] = None,
    config: options.Config = None,
    json: options.JSON = False,
) -> int:
    """Move a store to another, empty one. For example, from a SQLite file to PostgreSQL, or back. Cursors stay valid.
    Stop every listener first, and start it with the new store. The old one stays as it is. Rows that can't be read are
    logged and skipped."""
    before = _location("FROM", source)
    if before.file is not None and not before.file.is_file():
        raise StoreError(f"there is no store {before.file}")
    output = Output(json=json)
    after = load(config, listens=False).store if target is None else _location("TO", target)
    if before.file is not None and after.file is not None and before.file.resolve() == after.file.resolve():
        raise SettingsError(f"TO: {after.file} is FROM itself; write a new store, or set AIRBYTE_EVENTS_STORE to one")
    async with _open(before) as old, _open(after) as new:
        stats = await old.stats()
        with _progress("moving", stats.events + stats.jobs + stats.notifications) as advance:
            count = await migration.migrate(old, new, advance)
        skipped = sum(old.unreadable.values())
        result: dict[str, object] = {kind: count[kind] for kind in _KINDS}
        result |= {"unreadable": skipped, "epoch": new.epoch, "head": await new.head()}
        if json:
            output.object(result)
        else:
            output.facts([(name, str(value)) for name, value in result.items()])
        return 0


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

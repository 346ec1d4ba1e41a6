"""What is to be looked at of a listener: whether it is there, ready, streams at once, and learns of ends by push."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from airbyte_events import __version__
from airbyte_events._utils import json_values
from airbyte_events.cli.api_client import HOW_TO_ENTER, Listener
from airbyte_events.cli.doctor.findings import Finding, failure, ok, warning
from airbyte_events.cli.output import amount, duration
from airbyte_events.errors import FeedError, FeedRefused, FeedUnreachable, StoreError
from airbyte_events.feed.client import HELLO_SECONDS
from airbyte_events.listener.settings import StoreLocation
from airbyte_events.store.sqlite.store import SQLiteStore

SCARCE_BYTES, TOO_FEW_BYTES = 2 * 1024**3, 200 * 1024**2
"""Free on the store's disk: below the first is a warning, below the second a failure."""

_PART = "listener"


class ListenerChecks:
    """:param instances: those of the settings, which it should know."""

    def __init__(self, listener: Listener, instances: Collection[str]) -> None:
        self.entered = False
        """Whether it is there and takes the token."""
        self._listener = listener
        self._instances = instances

    async def run(self) -> AsyncIterator[Finding]:
        """Look at one thing after the other, as far as the one before allows."""
        url = self._listener.address.url
        try:
            health = await self._listener.get("/healthz")
        except FeedUnreachable as exc:
            yield failure(
                _PART, str(exc), "start airbyte-events serve, or name the right address (--listener, LISTENER_URL)"
            )
            return
        except FeedRefused as exc:
            yield failure(_PART, str(exc), "name the address of a listener (--listener, LISTENER_URL)")
            return
        version = json_values.text(health.get("version"))
        if version == __version__:
            yield ok(_PART, f"answers at {url}, version {version}")
        else:
            yield warning(
                _PART, f"answers at {url}, version {version}; this is {__version__}", "have both of one version"
            )
        yield await self._ready()
        try:
            status = await self._listener.get("/v1/status")
        except FeedRefused as exc:
            if exc.status_code == 401:
                fault = "is not the listener's" if self._listener.address.token else "is not known here"
                yield failure("API token", fault, HOW_TO_ENTER)
                return
            yield warning(_PART, f"does not tell how it does: {exc}")
            status = {}
        except FeedError as exc:
            yield failure(_PART, str(exc), "its log tells why")
            return
        self.entered = True
        yield ok("API token", "is accepted")
        yield await self._streams()
        for finding in self._told(status):
            yield finding

    async def _ready(self) -> Finding:
        try:
            await self._listener.get("/readyz")
        except FeedError as exc:
            return failure(_PART, f"is not ready: {exc}", "GET /readyz and its log tell what of it is not")
        return ok(_PART, "is ready: its store can be read and written")

    async def _streams(self) -> Finding:
        """Whether a stream's first words come at once, or something on the way holds them back."""
        began = anyio.current_time()
        try:
            async with self._listener.feed.stream() as frames:
                async for frame in frames:
                    took = anyio.current_time() - began
                    beat = json_values.seconds(frame.data.get("heartbeat"))
                    often = f", and something at least every {duration(beat)}" if beat else ""
                    return ok("stream", f"its first words come after {duration(took)}{often}")
        except FeedRefused as exc:
            return failure("stream", str(exc), "the address has to be the listener's own, with all of its paths")
        except FeedUnreachable as exc:
            fault = str(exc)
        else:
            fault = "it ended at once"
        return failure(
            "stream",
            f"its first words did not come within {HELLO_SECONDS:g} s: {fault}",
            "a proxy on the way buffers answers, or ends them: for nginx proxy_buffering off and proxy_read_timeout 1h",
        )

    def _told(self, status: dict[str, Any]) -> list[Finding]:
        """What the listener says of itself."""
        found = []
        store = json_values.mapping(status.get("store"))
        if store:
            found.append(
                ok(
                    "store",
                    f"{amount(json_values.whole(store.get('events')))} events, "
                    f"{amount(json_values.whole(store.get('jobs')))} jobs, "
                    f"{amount(json_values.whole(store.get('notifications')))} notifications",
                )
            )
        listed = status.get("instances")
        instances = {
            str(json_values.mapping(each).get("name")): json_values.mapping(each)
            for each in (listed if isinstance(listed, list) else [])
        }
        if instances and (lost := sorted(set(self._instances) - instances.keys())):
            found.append(
                failure(
                    _PART,
                    f"knows no Airbyte called {', '.join(lost)}; it knows {', '.join(sorted(instances))}",
                    "restart it with these settings, or ask the one that has them (--listener)",
                )
            )
        return found + [finding for name, told in instances.items() for finding in _instance(name, told)]


def _instance(name: str, told: dict[str, Any]) -> list[Finding]:
    found = []
    part = f"events {name}"
    failed = json_values.whole(told.get("failed_looks")) or 0
    if failed:
        found.append(
            failure(
                part,
                f"the listener's last {failed} looks at this Airbyte failed",
                "its log tells why; what is said of this Airbyte above is what this machine sees",
            )
        )
    if back_off := json_values.seconds(told.get("backoff_seconds")):
        found.append(warning(part, f"the listener leaves Airbyte alone for {duration(back_off)}, as that asked for it"))
    counters = json_values.mapping(told.get("counters"))
    announced, missed = (
        json_values.whole(counters.get("announced")) or 0,
        json_values.whole(counters.get("missed")) or 0,
    )
    if told.get("push_proven"):
        found.append(ok(part, "the last syncs that ended were announced by webhook"))
    elif missed:
        found.append(
            warning(
                part,
                f"{missed} syncs ended without a webhook, {announced} with one",
                "press Test in Airbyte's notification settings: does Airbyte's machine reach the listener?",
            )
        )
    elif announced:
        found.append(ok(part, f"{announced} ends were announced by webhook"))
    else:
        found.append(ok(part, "no sync has ended yet since the listener began to look"))
    return found


async def check_store(location: StoreLocation) -> AsyncIterator[Finding]:
    """The store of the settings, as far as it is seen from here beside the listener that has it open."""
    if location.url is not None:
        yield await _database(location)
    elif location.path is None:
        yield warning(
            "store", "is in memory: what it holds ends with the listener", "AIRBYTE_EVENTS_STORE names a file"
        )
    elif location.path.is_dir():
        yield failure("store", f"{location.path} is a folder", "AIRBYTE_EVENTS_STORE names a file in it")
    elif location.path.exists():
        yield await _file(location.path)
        yield _disk(location.path)
    else:
        yield ok("store", f"{location.path} is not there: a listener of these settings has not run on this machine yet")


async def _database(location: StoreLocation) -> Finding:
    try:
        from airbyte_events.store.postgres.pool import connect
    except ImportError as exc:
        return warning("store", f"{location}: no driver here ({exc})", "pip install 'airbyte-events[postgres]'")
    assert location.url is not None  # noqa: S101 -- so it is one of these
    try:
        with anyio.fail_after(10):
            connection = await connect(location.url)
            await connection.close()
    except (StoreError, TimeoutError) as exc:
        return failure("store", f"{location}: {exc or 'no answer within 10 s'}", "is the database reached from here?")
    return ok("store", f"{location} answers")


async def _file(path: Path) -> Finding:
    try:
        async with SQLiteStore(path, read_only=True) as store:
            stats = await store.stats()
    except (StoreError, sqlite3.Error) as exc:
        return failure("store", f"{path} can't be read: {exc}", "airbyte-events store check tells more")
    return ok("store", f"{path} can be read: {amount(stats.bytes)} bytes (store check reads all of it)")


def _disk(path: Path) -> Finding:
    free = shutil.disk_usage(path.parent).free
    text = f"{free / 1024**3:.1f} GiB are free on its disk"
    if free < TOO_FEW_BYTES:
        return failure("store", text, "make space: without it webhooks are refused, and ends found by polling get lost")
    if free < SCARCE_BYTES:
        return warning(
            "store", text, "make space, or keep less: AIRBYTE_EVENTS_RETAIN_DAYS, airbyte-events store compact"
        )
    return ok("store", text)

"""Checks of a listener and its store: reachability, API token, readiness, stream, and missing webhooks."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from airbyte_events import __version__
from airbyte_events._utils import json_values
from airbyte_events.cli.api_client import HOW_TO_AUTHENTICATE, Listener
from airbyte_events.cli.doctor.findings import Finding, failure, ok, warning
from airbyte_events.cli.output import amount, duration
from airbyte_events.errors import FeedError, FeedRefused, FeedUnreachable, StoreError
from airbyte_events.feed.client import HELLO_SECONDS
from airbyte_events.store.location import StoreLocation

SCARCE_BYTES, TOO_FEW_BYTES = 2 * 1024**3, 200 * 1024**2
"""Free space on the store's disk below which there is a warning, or a failure."""

_PART = "listener"


class ListenerChecks:
    """:param instances: the names in the settings, which the listener should have."""

    def __init__(self, listener: Listener, instances: Collection[str]) -> None:
        self.authorised = False
        """Whether it responds and accepts the token."""
        self._listener = listener
        self._instances = instances

    async def run(self) -> AsyncIterator[Finding]:
        """Yield findings, until a fault prevents further checks."""
        url = self._listener.address.url
        try:
            health = await self._listener.get("/healthz")
        except FeedUnreachable as exc:
            yield failure(
                _PART,
                str(exc),
                "start airbyte-events serve, or name another address (--listener, AIRBYTE_EVENTS_LISTENER_URL)",
            )
            return
        except FeedRefused as exc:
            yield failure(_PART, str(exc), "name the address of a listener (--listener, AIRBYTE_EVENTS_LISTENER_URL)")
            return
        version = json_values.text(health.get("version"))
        if version == __version__:
            yield ok(_PART, f"answers at {url}, version {version}")
        else:
            yield warning(
                _PART, f"answers at {url}, version {version}; this is {__version__}", "install the same version on both"
            )
        yield await self._ready()
        try:
            status = await self._listener.get("/v1/status")
        except FeedRefused as exc:
            if exc.status_code == 401:
                fault = "is rejected" if self._listener.address.token else "is not set"
                yield failure("API token", fault, HOW_TO_AUTHENTICATE)
                return
            yield warning(_PART, f"does not report its status: {exc}")
            status = {}
        except FeedError as exc:
            yield failure(_PART, str(exc), "read its log")
            return
        self.authorised = True
        yield ok("API token", "is accepted")
        yield await self._streams()
        for finding in self._status(status):
            yield finding

    async def _ready(self) -> Finding:
        try:
            await self._listener.get("/readyz")
        except FeedError as exc:
            return failure(_PART, f"is not ready: {exc}", "see GET /readyz and its log")
        return ok(_PART, "is ready")

    async def _streams(self) -> Finding:
        """Check whether the stream's first frame arrives at once, or a proxy buffers it."""
        began = anyio.current_time()
        try:
            async with self._listener.feed.stream() as frames:
                async for frame in frames:
                    took = anyio.current_time() - began
                    beat = json_values.seconds(frame.data.get("heartbeat"))
                    often = f", then one at least every {duration(beat)}" if beat else ""
                    return ok("stream", f"the first frame arrives after {duration(took)}{often}")
        except FeedRefused as exc:
            return failure("stream", str(exc), "name the address of the listener itself, with all of its paths")
        except FeedUnreachable as exc:
            fault = str(exc)
        else:
            fault = "it ended"
        return failure(
            "stream",
            f"no frame arrived within {HELLO_SECONDS:g} s: {fault}",
            "let the proxy neither buffer nor end responses: for nginx proxy_buffering off and proxy_read_timeout 1h",
        )

    def _status(self, status: dict[str, Any]) -> Iterator[Finding]:
        if store := json_values.mapping(status.get("store")):
            numbers = (
                f"{amount(json_values.whole(store.get(name)))} {name}" for name in ("events", "jobs", "notifications")
            )
            yield ok("store", ", ".join(numbers))
        listed = status.get("instances")
        instances = {
            str(json_values.mapping(each).get("name")): json_values.mapping(each)
            for each in (listed if isinstance(listed, list) else [])
        }
        if instances and (lost := sorted(set(self._instances) - instances.keys())):
            yield failure(
                _PART,
                f"has no Airbyte {', '.join(lost)}; it has {', '.join(sorted(instances))}",
                "restart it with these settings, or name the one that has them (--listener)",
            )
        for name, each in instances.items():
            yield from _instance(name, each)


def _instance(name: str, status: dict[str, Any]) -> Iterator[Finding]:
    part = f"events {name}"
    if failed := json_values.whole(status.get("failed_looks")):
        yield failure(
            part,
            f"the listener's last {failed} polls of this Airbyte failed",
            "read the listener's log; the checks of this Airbyte below are made from this machine",
        )
    if back_off := json_values.seconds(status.get("backoff_seconds")):
        yield warning(part, f"the listener backs off from Airbyte for {duration(back_off)}")
    counters = json_values.mapping(status.get("counters"))
    announced, missed = (json_values.whole(counters.get(counter)) or 0 for counter in ("announced", "missed"))
    if status.get("push_proven"):
        yield ok(part, "the last completed syncs were announced by webhook")
    elif missed:
        yield warning(
            part,
            f"{missed} syncs completed without a webhook, {announced} with one",
            "press Test in Airbyte's notification settings, to see whether Airbyte reaches the listener",
        )
    elif announced:
        yield ok(part, f"{announced} completions were announced by webhook")
    else:
        yield ok(part, "no sync has completed since the listener started")


async def check_store(location: StoreLocation) -> AsyncIterator[Finding]:
    """Check the store of the settings, beside the listener that has it open."""
    try:
        found = await location.check()
    except ImportError as exc:
        hint = f"pip install 'airbyte-events[{location.extra}]'"
        yield warning("store", f"{location}: the driver is not installed ({exc})", hint)
    except StoreError as exc:
        yield failure("store", str(exc), location.remedy)
    else:
        if location.durable:
            yield ok("store", found)
        else:
            yield warning("store", found, "set AIRBYTE_EVENTS_STORE to a file")
    if location.file is not None and location.file.is_file():
        yield _disk(location.file)


def _disk(path: Path) -> Finding:
    free = shutil.disk_usage(path.parent).free
    text = f"its disk has {free / 1024**3:.1f} GiB free"
    if free < TOO_FEW_BYTES:
        return failure("store", text, "free some space: without it webhooks are refused, and events are lost")
    if free < SCARCE_BYTES:
        return warning("store", text, "free some space, or retain less: AIRBYTE_EVENTS_RETAIN_DAYS")
    return ok("store", text)

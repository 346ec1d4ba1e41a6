"""Checks of a listener and its store: reachability, API token, readiness, stream, and missing webhooks."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from typing import Any

import anyio

from airbyte_events import __version__
from airbyte_events._utils import json_values
from airbyte_events._utils.times import duration
from airbyte_events.cli.api_client import HOW_TO_AUTHENTICATE, HOW_TO_REACH
from airbyte_events.cli.doctor.findings import Report
from airbyte_events.cli.output import counted
from airbyte_events.errors import FeedError, FeedRefused, FeedUnreachable, StoreError
from airbyte_events.feed.client import HELLO_SECONDS, FeedClient
from airbyte_events.store.location import StoreLocation

SCARCE_BYTES, TOO_FEW_BYTES = 2 * 1024**3, 200 * 1024**2
"""Free space on the store's disk below which there is a warning, or a failure."""


async def check_listener(report: Report, listener: FeedClient, instances: Collection[str]) -> bool:
    """Report on a listener, until a fault prevents further checks.

    :param instances: the names in the settings, which the listener should have.
    :return: whether it responds and accepts the API token.
    """
    about, token = report.about("listener"), report.about("API token")
    try:
        health = await listener.request("GET", "/healthz")
    except FeedUnreachable as exc:
        about.failure(str(exc).removesuffix(f": {HOW_TO_REACH}"), HOW_TO_REACH)
        return False
    except FeedRefused as exc:
        about.failure(str(exc), "name the address of a listener (--listener, AIRBYTE_EVENTS_LISTENER_URL)")
        return False
    version = json_values.text(health.get("version"))
    found = f"responds at {listener.url}, version {version}"
    if version == __version__:
        about.ok(found)
    else:
        about.warning(f"{found}; this is {__version__}", "install the same version on both")
    try:
        await listener.request("GET", "/readyz")
        about.ok("is ready")
    except FeedError as exc:
        about.failure(f"is not ready: {exc}", "see GET /readyz and its log")
    try:
        status = await listener.request("GET", "/v1/status")
    except FeedRefused as exc:
        if exc.status_code == 401:
            token.failure(str(exc).removesuffix(f": {HOW_TO_AUTHENTICATE}"), HOW_TO_AUTHENTICATE)
            return False
        about.warning(f"does not report its status: {exc}")
        status = {}
    except FeedError as exc:
        about.failure(str(exc), "read its log")
        return False
    token.ok("is accepted")
    await _check_stream(report.about("stream"), listener)
    _check_status(report, status, instances)
    return True


def _check_status(report: Report, status: dict[str, Any], instances: Collection[str]) -> None:
    if store := json_values.mapping(status.get("store")):
        names = ("event", "job", "notification")
        report.about("store").ok(
            ", ".join(counted(json_values.whole(store.get(f"{name}s")) or 0, name) for name in names)
        )
    listed = status.get("instances")
    known = {
        str(each.get("name")): each for each in map(json_values.mapping, listed if isinstance(listed, list) else [])
    }
    if known and (lost := sorted(set(instances) - known.keys())):
        report.about("listener").failure(
            f"has no Airbyte {', '.join(lost)}; it has {', '.join(sorted(known))}",
            "restart it with these settings, or name the one that has them (--listener)",
        )
    for name, each in known.items():
        _check_instance(report.about(f"events {name}"), each)


async def _check_stream(about: Report, listener: FeedClient) -> None:
    """Check whether the stream's first frame arrives at once, or a proxy buffers it."""
    began = anyio.current_time()
    fault = "it ended"
    try:
        async with listener.stream() as frames:
            async for frame in frames:
                took = anyio.current_time() - began
                beat = json_values.seconds(frame.data.get("heartbeat"))
                often = f", then one at least every {duration(beat)}" if beat else ""
                about.ok(f"the first frame arrives after {duration(took)}{often}")
                return
    except FeedRefused as exc:
        about.failure(str(exc), "name the address of the listener itself, with all of its paths")
        return
    except FeedUnreachable as exc:
        fault = str(exc)
    about.failure(
        f"no frame arrived within {HELLO_SECONDS:g} s: {fault}",
        "let the proxy neither buffer nor end responses: for nginx proxy_buffering off and proxy_read_timeout 1h",
    )


def _check_instance(about: Report, status: dict[str, Any]) -> None:
    if failed := json_values.whole(status.get("failed_looks")):
        about.failure(
            f"the listener's last {counted(failed, 'poll')} of this Airbyte failed",
            "read the listener's log; the checks of this Airbyte below are made from this machine",
        )
    if back_off := json_values.seconds(status.get("backoff_seconds")):
        about.warning(f"the listener backs off from Airbyte for {duration(back_off)}")
    counters = json_values.mapping(status.get("counters"))
    announced, missed = (json_values.whole(counters.get(counter)) or 0 for counter in ("announced", "missed"))
    if status.get("push_proven"):
        about.ok("the last completed syncs were announced by webhook")
    elif missed:
        about.warning(
            f"{counted(missed, 'sync')} completed without a webhook, {announced} with one",
            "press Test in Airbyte's notification settings, to see whether Airbyte reaches the listener",
        )
    elif announced:
        about.ok(f"announced by webhook: {counted(announced, 'completion')}")
    else:
        about.ok("no sync has completed since the listener started")


async def check_store(about: Report, location: StoreLocation) -> None:
    """Check the store of the settings, beside the listener that has it open."""
    try:
        found = await location.check()
    except ImportError as exc:
        hint = f"pip install 'airbyte-events[{location.extra}]'"
        about.warning(f"{location}: the driver is not installed ({exc})", hint)
    except StoreError as exc:
        about.failure(str(exc), location.remedy)
    else:
        if location.durable:
            about.ok(found)
        else:
            about.warning(found, "set AIRBYTE_EVENTS_STORE to a file")
    if location.file is None or not location.file.is_file():
        return
    free = shutil.disk_usage(location.file.parent).free
    text = f"its disk has {free / 1024**3:.1f} GiB free"
    if free < TOO_FEW_BYTES:
        about.failure(text, "free some space: on a full disk, webhooks are refused and no events are stored")
    elif free < SCARCE_BYTES:
        about.warning(text, "free some space, or retain less: AIRBYTE_EVENTS_RETAIN_DAYS")
    else:
        about.ok(text)

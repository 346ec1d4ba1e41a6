"""Have Airbyte itself send a test to the listener, and find where the path breaks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from airbyte_events._utils import json_values
from airbyte_events._utils.printable import shown
from airbyte_events.airbyte import AirbyteClient
from airbyte_events.airbyte.internal_api import TEST_SECONDS
from airbyte_events.cli.webhooks.probe import Proof, post, prove
from airbyte_events.errors import AirbyteError, AirbyteUnreachable, FeedError, NotSent
from airbyte_events.feed.client import FeedClient
from airbyte_events.listener.http.probes import PARAMETER, Arrived
from airbyte_events.simulator import notification_bodies

_NEWEST = 20

_proof = partial(Proof, by_airbyte=True)

_FAULTS = {
    Arrived.UNKNOWN_TOKEN: (
        "the host is this listener, and the token in the URL is not one of its",
        "run airbyte-events webhooks install with the listener's AIRBYTE_EVENTS_WEBHOOK_TOKENS, or add this token to "
        "them",
    ),
    Arrived.UNKNOWN_INSTANCE: (
        "the host is this listener, and it has no Airbyte of the name in the URL",
        "add this instance to the listener's settings, or run airbyte-events webhooks install --instance with one that "
        "it has",
    ),
    Arrived.NOT_PERMITTED: (
        "the host is this listener, and it accepts no webhooks from the address that the test came from",
        "add Airbyte's address to AIRBYTE_EVENTS_WEBHOOK_ALLOW, and proxies in between to "
        "AIRBYTE_EVENTS_TRUSTED_PROXIES",
    ),
    Arrived.NOT_STORED: ("it reached the listener, which could not store it", "read the listener's log"),
    Arrived.INCOMPLETE: (
        "it reached the listener without the end of its body",
        "let the proxies in between pass on whole bodies",
    ),
}
_LOST_BODY = (
    "it reached the listener without its body",
    "a proxy or server in between takes the upgrade to HTTP/2 that Airbyte's client offers: let it ignore the header "
    "Upgrade, or remove it",
)
_DAMAGED = ("it reached the listener with another body", "let the proxies in between pass on bodies unchanged")


async def prove_by_airbyte(airbyte: AirbyteClient, url: str, where: str, listener: FeedClient | None) -> Proof:
    """Have Airbyte send its test to the receiver, and find it there. Where Airbyte sends none, post a test from here.

    :param where: the URL, for display.
    :param listener: None if its API can't be called.
    """
    probe = json_values.text((await _ask(listener, "POST", "/v1/probes")).get("probe"))
    inbox = await _inbox(listener, 1)
    newest = None if inbox is None else max(map(_id, inbox), default=0)
    try:
        succeeded, reason = await _send(airbyte, url if probe is None else f"{url}?{PARAMETER}={probe}", url, where)
    except AirbyteError:
        # The internal API is optional.
        return await prove(url, where, listener)
    found = {} if probe is None else await _ask(listener, "GET", f"/v1/probes/{probe}")
    if listener is not None and found.get("result") is not None:
        return _arrived(found, where, listener, success=bool(succeeded), reason=reason)
    if succeeded:
        return await _answered(where, listener, known=bool(found), newest=newest)
    posted = await post(url, notification_bodies.sync_test())
    here = f"one posted from here does not, either: {posted.fault}" if posted.fault else "one posted from here does"
    did = f"a test that Airbyte itself sent to {where} did not arrive"
    if succeeded is False and reason is None:
        return _proof(
            f"{did}: a proxy or another server there responded with an error; {here}",
            "read the log of what stands in front of the listener, and let POST requests to /webhooks/ pass",
        )
    reason = reason or f"it got no response within {TEST_SECONDS:g} s"
    return _proof(
        f"{did}: Airbyte can't reach the host: {reason}; {here}",
        f"{'start the listener if it does not run; ' if posted.fault else ''}check from the machine of "
        "Airbyte's server whether the name resolves and no firewall is in between, or set another address by "
        "airbyte-events webhooks install --url",
    )


async def _send(airbyte: AirbyteClient, url: str, secret: str, where: str) -> tuple[bool | None, str | None]:
    """Have Airbyte send its test.

    :return: whether it got a 2xx response, None if it did not say so in time; and why it got no response, if it has a
        reason.
    :raises AirbyteError: if it sends no test.
    """
    try:
        succeeded, reason = await airbyte.internal.try_webhook(url)
    except NotSent:
        raise
    except AirbyteUnreachable:
        # Airbyte's client connects without a time-out.
        return None, None
    if reason is None:
        return succeeded, None
    for text, instead in ((url, where), (secret, where), (secret.rpartition("/")[2], "…")):
        reason = reason.replace(text, instead)
    return succeeded, shown(reason)


def _arrived(probe: Mapping[str, Any], where: str, listener: FeedClient, *, success: bool, reason: str | None) -> Proof:
    result, size = probe.get("result"), json_values.whole(probe.get("bytes")) or 0
    test = f"a test that Airbyte itself sent to {where}"
    if result == Arrived.STORED:
        text = f"{test} arrived whole ({size} bytes) and is notification {probe.get('notification')} of the listener "
        text += listener.url
        if success:
            return _proof(text)
        why = reason or "a proxy responded with an error, or not in time"
        return _proof(
            f"{text}, but Airbyte got no success: {why}", "let the proxies in between pass on the listener's response"
        )
    if result == Arrived.REJECTED:
        fault, remedy = _DAMAGED if size else _LOST_BODY
    else:
        known = {each.value: said for each, said in _FAULTS.items()}
        unknown = f"the listener reports {shown(str(result)[:40])}", "read the listener's log"
        fault, remedy = known.get(str(result), unknown)
    return _proof(f"{test} did not arrive: {fault}", remedy)


async def _answered(where: str, listener: FeedClient | None, *, known: bool, newest: int | None) -> Proof:
    """Return the proof of a test that Airbyte got a success for, and that this listener process did not see."""
    text = f"a test that Airbyte itself sent to {where}"
    if listener is None or not known:
        return _proof(f"{text} arrived, by the response")
    for stored in await _inbox(listener, _NEWEST) or ():
        if stored.get("kind") == "test" and newest is not None and _id(stored) > newest:
            return _proof(
                f"{text} arrived and is notification {stored.get('id')} of {listener.url}, by another listener "
                "with the same store"
            )
    return _proof(
        f"{text} got a success, and did not arrive at the listener {listener.url}: a proxy or another server "
        "responds there",
        "run airbyte-events webhooks install with the listener's own public --url, or name the right --listener",
    )


async def _ask(listener: FeedClient | None, method: str, path: str, **params: int) -> dict[str, Any]:
    """Return the listener's response; an empty one if it refuses, as an older version does, or without an API token."""
    try:
        return {} if listener is None else await listener.request(method, path, params=params)
    except FeedError:
        return {}


async def _inbox(listener: FeedClient | None, limit: int) -> list[dict[str, Any]] | None:
    """Return the newest notifications; None if they can't be read."""
    listed = (await _ask(listener, "GET", "/v1/notifications", limit=limit)).get("notifications")
    return list(map(json_values.mapping, listed)) if isinstance(listed, list) else None


def _id(stored: Mapping[str, Any]) -> int:
    return json_values.whole(stored.get("id")) or 0

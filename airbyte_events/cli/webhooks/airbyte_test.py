"""Have Airbyte itself send a test to the listener, and find where the way breaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """What Airbyte says of its test.

    :param succeeded: whether it got a 2xx response; None if it did not say so in time.
    :param reason: why it got no response, if it has a reason.
    """

    succeeded: bool | None
    reason: str | None = None


async def prove_by_airbyte(airbyte: AirbyteClient, url: str, where: str, listener: FeedClient | None) -> Proof:
    """Have Airbyte send its test to the receiver, and find it there. Where Airbyte sends none, post a test from here.

    :param where: the URL, for display.
    :param listener: None if its API can't be called.
    """
    probe, inbox = await _announce(listener), await _inbox(listener, 1)
    newest = None if inbox is None else max((_id(each) for each in inbox), default=0)
    try:
        sent = await _send(airbyte, url if probe is None else f"{url}?{PARAMETER}={probe}", url, where)
    except AirbyteError:
        # The internal API is optional.
        return await prove(url, where, listener)
    found = await _arrival(listener, probe)
    if listener is not None and found is not None and found.get("result") is not None:
        return _arrived(found, sent, where, listener)
    if sent.succeeded:
        return await _answered(where, listener, known=found is not None, newest=newest)
    posted = await post(url, notification_bodies.sync_test())
    here = f"one posted from here does not, either: {posted.fault}" if posted.fault else "one posted from here does"
    did = f"a test that Airbyte itself sent to {where} did not arrive"
    if sent.succeeded is False and sent.reason is None:
        return Proof(
            text=f"{did}: a proxy or another server there responded with an error; {here}",
            remedy="read the log of what stands in front of the listener, and let POST requests to /webhooks/ pass",
            by_airbyte=True,
        )
    reason = sent.reason or f"it got no response within {TEST_SECONDS:g} s"
    return Proof(
        text=f"{did}: Airbyte can't reach the host: {reason}; {here}",
        remedy=f"{'start the listener if it does not run; ' if posted.fault else ''}check from the machine of "
        "Airbyte's server whether the name resolves and no firewall is in between, or set another address by "
        "airbyte-events webhooks install --url",
        by_airbyte=True,
    )


async def _send(airbyte: AirbyteClient, url: str, secret: str, where: str) -> _Sent:
    """:raises AirbyteError: if Airbyte sends no test."""
    try:
        succeeded, reason = await airbyte.internal.try_webhook(url)
    except NotSent:
        raise
    except AirbyteUnreachable:
        # Airbyte's client connects without a time-out.
        return _Sent(succeeded=None)
    if reason is not None:
        for text in (url, secret, secret.rpartition("/")[2]):
            reason = reason.replace(text, where if text != secret.rpartition("/")[2] else "…")
    return _Sent(succeeded=succeeded, reason=None if reason is None else shown(reason))


def _arrived(probe: Mapping[str, Any], sent: _Sent, where: str, listener: FeedClient) -> Proof:
    result, size = probe.get("result"), json_values.whole(probe.get("bytes")) or 0
    test = f"a test that Airbyte itself sent to {where}"
    if result == Arrived.STORED:
        text = f"{test} arrived whole ({size} bytes) and is notification {probe.get('notification')} of the listener "
        text += listener.url
        if sent.succeeded:
            return Proof(text=text, by_airbyte=True)
        why = sent.reason or "a proxy responded with an error, or not in time"
        return Proof(
            text=f"{text}, but Airbyte got no success: {why}",
            remedy="let the proxies in between pass on the listener's response",
            by_airbyte=True,
        )
    if result == Arrived.REJECTED:
        fault, remedy = _DAMAGED if size else _LOST_BODY
    else:
        known = {each.value: said for each, said in _FAULTS.items()}
        unknown = f"the listener reports {shown(str(result)[:40])}", "read the listener's log"
        fault, remedy = known.get(str(result), unknown)
    return Proof(text=f"{test} did not arrive: {fault}", remedy=remedy, by_airbyte=True)


async def _answered(where: str, listener: FeedClient | None, *, known: bool, newest: int | None) -> Proof:
    """Return the proof of a test that Airbyte got a success for, and that this listener process did not see."""
    text = f"a test that Airbyte itself sent to {where}"
    if listener is None or not known:
        return Proof(text=f"{text} arrived, by the response", by_airbyte=True)
    for stored in await _inbox(listener, _NEWEST) or ():
        if stored.get("kind") == "test" and newest is not None and _id(stored) > newest:
            return Proof(
                text=f"{text} arrived and is notification {stored.get('id')} of {listener.url}, by another listener "
                "with the same store",
                by_airbyte=True,
            )
    return Proof(
        text=f"{text} got a success, and did not arrive at the listener {listener.url}: a proxy or another server "
        "responds there",
        remedy="run airbyte-events webhooks install with the listener's own public --url, or name the right --listener",
        by_airbyte=True,
    )


async def _announce(listener: FeedClient | None) -> str | None:
    if listener is None:
        return None
    try:
        return json_values.text((await listener.request("POST", "/v1/probes")).get("probe"))
    except FeedError:
        # An older version, or no API token.
        return None


async def _arrival(listener: FeedClient | None, probe: str | None) -> dict[str, Any] | None:
    try:
        return None if listener is None or probe is None else await listener.request("GET", f"/v1/probes/{probe}")
    except FeedError:
        return None


async def _inbox(listener: FeedClient | None, limit: int) -> list[dict[str, Any]] | None:
    """Return the newest notifications; None if they can't be read."""
    if listener is None:
        return None
    try:
        listed = (await listener.request("GET", "/v1/notifications", params={"limit": limit})).get("notifications")
    except FeedError:
        return None
    return list(map(json_values.mapping, listed if isinstance(listed, list) else []))


def _id(stored: Mapping[str, Any]) -> int:
    return json_values.whole(stored.get("id")) or 0

"""Post to the listener as Airbyte does, and find the notification in the inbox."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import httpx

from airbyte_events._utils import json_values
from airbyte_events._utils.http import why
from airbyte_events.cli.api_client import http_client
from airbyte_events.errors import FeedError, FeedUnreachable
from airbyte_events.events import JobError
from airbyte_events.feed.client import FeedClient
from airbyte_events.listener.forwarding.targets import FORWARDED
from airbyte_events.simulator import Script, Simulator, notification_bodies
from airbyte_events.simulator.webhooks import java_headers

RESPONSE_SECONDS = 15.0
"""Time-out of a post; a listener responds within 2 s."""

SETTLE_SECONDS = 15.0
"""Time-out for the outcome of a notification."""

CHECK_WAY = "check that the listener runs at that address, and that proxies pass POST requests with bodies"
"""The remedy where a post does not arrive."""

_LARGEST_RESPONSE = 64 * 1024
_NO_JOB = 900_000_000_000_000_000
"""Job ids above this exist in no Airbyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A body that Airbyte sends, with the expected kind and outcome.

    :param meaning: the reason of the outcome.
    """

    name: str
    kind: str
    body: dict[str, Any]
    outcome: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """The receiver's response.

    :param status: None for no response.
    :param id: the notification's, if it was accepted.
    :param fault: why it was not accepted, for people; empty if it was.
    """

    status: int | None
    id: int | None
    fault: str
    bytes: int


def samples() -> Iterator[Sample]:
    """Return a sample of each body that Airbyte sends. Their jobs do not exist."""
    simulator = Simulator()
    # A listener stores each body once: the name makes every run's bodies new.
    connection = simulator.world.add_connection(Script.hanging(), name=f"airbyte-events test {secrets.token_hex(4)}")
    job = simulator.world.start_job(connection)
    simulator.world.end_job(job, "succeeded")
    job.id = _NO_JOB + secrets.randbelow(10**16)
    job.error = JobError(message="This is a test", type="config_error", origin="source")
    subjects = {"job": job, "connection": connection, None: None}
    for name, sample in notification_bodies.SAMPLES.items():
        if sample.kind.status is None:
            outcome, meaning = "ignored", "stored, and forwarded if configured; it announces no completion"
        elif name == "text-only":
            outcome, meaning = "confirmed", "it has no job id: a list of changed jobs finds what completed"
        else:
            outcome, meaning = "unknown_job", "the API does not confirm it: there is no such job"
        body = sample.compose(subjects[sample.about], simulator.workspace, "http://airbyte.invalid", None)
        yield Sample(name=sample.title, kind=sample.kind, body=body, outcome=outcome, meaning=meaning)


async def post(url: str, body: dict[str, Any], *, forward: bool = False) -> Posted:
    """Post a body as Airbyte does.

    :param url: the receiver's, with its token.
    :param forward: whether the listener may forward it.
    """
    content = json.dumps(body).encode()
    headers = java_headers(url) | ({} if forward else {FORWARDED: "1"})
    try:
        async with http_client(url) as http:
            # A request of its own, so that none of httpx's default headers is added.
            request = httpx.Request("POST", url, headers=headers, content=content)
            with anyio.fail_after(RESPONSE_SECONDS):
                response = await http.send(request)
    except (TimeoutError, httpx.TimeoutException):
        return Posted(status=None, id=None, fault=f"no response within {RESPONSE_SECONDS:g} s", bytes=len(content))
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        return Posted(status=None, id=None, fault=f"no response ({why(exc)})", bytes=len(content))
    answer: dict[str, Any] = {}
    if len(response.content) <= _LARGEST_RESPONSE:
        try:
            answer = json_values.parse_object(response.content)
        except ValueError:
            answer = {}
    id_ = json_values.whole(answer.get("event"), least=1)
    fault = "" if response.status_code in (200, 202) and id_ is not None else _fault(response, answer)
    return Posted(status=response.status_code, id=id_ if not fault else None, fault=fault, bytes=len(content))


def _fault(response: httpx.Response, answer: dict[str, Any]) -> str:
    status = response.status_code
    if 200 <= status <= 299:
        return f"it responds with {status}, but not as a listener does: is it another server?"
    if status == 404:
        return (
            "it responds with 404: it is no listener, or has another token or instance, or accepts no webhooks from "
            "here (AIRBYTE_EVENTS_WEBHOOK_ALLOW)"
        )
    if 300 <= status <= 399:
        return f"it responds with {status}: Airbyte follows no redirects, so write the URL that needs none"
    words = (json_values.text(answer.get("error")) or "")[:200]
    lost = (
        " (a proxy lost the body: it takes the offered upgrade to HTTP/2 for the request)" if "empty" in words else ""
    )
    return f"it responds with {status}" + (f": {words}" if words else "") + lost


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a test arrived at the listener, for people.

    :param remedy: what to do; empty if it arrived.
    :param by_airbyte: whether Airbyte itself sent it, and not this machine.
    """

    text: str
    remedy: str = ""
    by_airbyte: bool = False


async def prove(url: str, where: str, listener: FeedClient | None) -> Proof:
    """Post a test to the receiver, and find it in the listener's inbox."""
    posted = await post(url, notification_bodies.sync_test())
    if posted.fault or posted.id is None:
        return Proof(f"a test posted from here to {where} did not arrive: {posted.fault}", CHECK_WAY)
    arrived = f"a test of {posted.bytes} bytes, posted from here to {where} as Airbyte does, arrived whole"
    if listener is None:
        return Proof(arrived)
    try:
        stored = await found(listener, posted.id)
    except FeedError as exc:
        return Proof(f"{arrived}, by the response (the inbox could not be read: {exc})")
    if stored is None or stored.get("kind") != "test":
        return Proof(
            f"a test posted from here to {where} went to another listener than {listener.url}",
            "run airbyte-events webhooks install with the right --url, or name the right --listener",
        )
    return Proof(f"{arrived} and is notification {posted.id} of the listener {listener.url}")


async def found(listener: FeedClient, id_: int, *, settled: bool = False) -> dict[str, Any] | None:
    """Return a notification in the listener's inbox; None if it is not there.

    :param settled: wait a moment for its outcome.
    :raises FeedError: if the listener does not respond.
    """
    deadline = anyio.current_time() + SETTLE_SECONDS
    while True:
        answer = await listener.request("GET", "/v1/notifications", params={"limit": 1, "before": id_ + 1})
        listed = answer.get("notifications")
        if not isinstance(listed, list):
            raise FeedUnreachable(f"{listener.url}/v1/notifications did not respond as a listener does")
        each = json_values.mapping(listed[0]) if listed else {}
        if each.get("id") != id_:
            return None
        if not settled or each.get("outcome") != "pending" or anyio.current_time() > deadline:
            return each
        await anyio.sleep(0.1)

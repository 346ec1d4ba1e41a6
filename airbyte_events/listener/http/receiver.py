"""The webhook receiver: stores a notification, then responds.

Airbyte sends a webhook once and waits for the response while it completes the job, so the receiver only stores it.
The inbox worker confirms it later. Airbyte's Java client offers an upgrade to HTTP/2 with every POST; uvicorn then
passes on the body with h11, but not with httptools.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Mapping

import anyio
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from airbyte_events._utils.times import utcnow
from airbyte_events._utils.tracing import record
from airbyte_events.airbyte.notifications import parse
from airbyte_events.errors import NotificationError, StoreError
from airbyte_events.events import JobRef
from airbyte_events.listener.forwarding.targets import FORWARDED, Targets
from airbyte_events.listener.http.probes import Arrived, Probe, Probes
from airbyte_events.store.base import NotificationInbox
from airbyte_events.store.records import Arrival, Outcome
from airbyte_events.web.auth import Tokens
from airbyte_events.web.rate_limit import ClientAccess

logger = logging.getLogger(__name__)

MAX_BODY = 512 * 1024
"""Bytes. Most of Airbyte's bodies have a few thousand. A failure with a long reason, which is repeated three times, had
152 kB; a schema change of 2,000 fields had 96 kB."""

MOST_BYTES = 64 * 1024 * 1024
"""The largest total size of notifications that are being received and stored; more are refused."""

STORE_SECONDS = 2.0
"""A notification that takes longer to store is refused: Airbyte's job completion waits for the response."""

MOST_AT_ONCE = 1000
"""The largest number of notifications that are being stored: about as many as a store takes in a second. More are
refused at once, so that a slow store fills neither the memory nor all connections."""


_PATH = re.compile("/webhooks/([^/]+)/([^/]+)")


def not_found() -> Response:
    """Return the 404 of every unknown path and every wrong token, so that they can't be told apart."""
    return JSONResponse({"error": "not found"}, status_code=404)


class _TooLarge(Exception):
    """The body is larger than :data:`MAX_BODY`."""


class Receiver:
    """``POST /webhooks/{instance}/{token}``, an ASGI application. Every other request gets the 404.

    It uses no framework, whose routing would take longer than all of this. If another application mounts it, the access
    log of that server shows the webhook token, which is part of the path.

    :param targets: the forwarding targets, by instance.
    :param on_stored: called with the seconds that the store took.
    :param probes: learn how they arrived. Their responses are those of other requests; they are not forwarded.
    """

    def __init__(
        self,
        store: NotificationInbox,
        instances: Collection[str],
        tokens: Tokens,
        access: ClientAccess | None = None,
        targets: Mapping[str, Targets] | None = None,
        on_failure: Callable[[], object] = lambda: None,
        on_stored: Callable[[float], object] = lambda seconds: None,
        probes: Probes | None = None,
    ) -> None:
        self._store = store
        self._instances = instances
        self._tokens = tokens
        self._access = access or ClientAccess()
        self._targets = targets or {}
        self._on_failure = on_failure
        self._on_stored = on_stored
        self._probes = probes or Probes()
        self._storing = 0
        self._bytes = 0
        self._overloaded = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(scope, receive)
        if response is not None:
            await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response | None:
        """Store a notification and return the response; None if the sender has disconnected."""
        probe = self._probes.of(scope)
        if (instance := self._instance(scope, probe)) is None:
            return self._access.refuse(scope, not_found())
        body = bytearray()
        try:
            refusal = await self._receive(scope, receive, body)
            if refusal is not None:
                return refusal
            return await self._store_body(scope, instance, bytes(body), probe)
        except ClientDisconnect:
            if probe is not None:
                probe.arrived(Arrived.INCOMPLETE, len(body))
            logger.warning("notification incomplete: the sender disconnected", extra={"instance": instance})
            return None
        except _TooLarge:
            logger.warning("notification rejected: larger than %d bytes", MAX_BODY, extra={"instance": instance})
            return _refuse(413, f"the notification is larger than {MAX_BODY} bytes")
        finally:
            self._bytes -= len(body)

    async def _receive(self, scope: Scope, receive: Receive, body: bytearray) -> Response | None:
        """Receive the whole body.

        :param body: receives the bytes.
        :return: a refusal if the notifications in progress use all memory that they may use.
        :raises ClientDisconnect: if the sender disconnects.
        :raises _TooLarge: if the body is too large.
        """
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value[:12]) > MAX_BODY:
                raise _TooLarge
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            body += part
            self._bytes += len(part)
            more = message.get("more_body", False)
            if len(body) > MAX_BODY:
                raise _TooLarge
            if self._bytes > MOST_BYTES:
                return self._overload(f"bytes={MOST_BYTES}")
        return None

    def _overload(self, limit: str) -> Response:
        if not self._overloaded:
            logger.error("too many notifications in progress, more are refused: %s", limit)
        self._overloaded = True
        return _refuse(503, "too many notifications are being stored", {"Retry-After": "5"})

    async def _store_body(self, scope: Scope, instance: str, body: bytes, probe: Probe | None) -> Response:
        arrival, fault = self._read(scope, instance, body, probe)
        if self._storing >= MOST_AT_ONCE:
            return self._overload(f"notifications={MOST_AT_ONCE}")
        self._storing += 1
        began = time.perf_counter()
        try:
            with anyio.fail_after(STORE_SECONDS):
                receipt = await self._store.receive(arrival)
        except (StoreError, TimeoutError) as exc:
            if probe is not None:
                probe.arrived(Arrived.NOT_STORED, len(body))
            reason = str(exc) or f"it took longer than {STORE_SECONDS:g} s"
            logger.error("could not store a notification: error=%s", reason, extra={"instance": instance})
            self._on_failure()
            return _refuse(503, "the notification could not be stored", {"Retry-After": "5"})
        finally:
            self._storing -= 1
            self._overloaded = self._overloaded and self._storing > 0
        self._on_stored(time.perf_counter() - began)
        if probe is not None:
            probe.arrived(Arrived.REJECTED if fault else Arrived.STORED, len(body), receipt.id)
        if arrival.job_id is not None:
            ref = JobRef(instance, arrival.job_id)
            record("webhook", ref, arrival.received_at, kind=arrival.kind, notification=receipt.id)
        if fault:
            about = {"instance": instance, "notification": receipt.id}
            logger.warning("notification rejected: id=%d error=%s", receipt.id, fault, extra=about)
            return _refuse(400, fault)
        return _receipt(receipt.id, 202 if arrival.outcome is Outcome.PENDING and not receipt.duplicate else 200)

    def _read(self, scope: Scope, instance: str, body: bytes, probe: Probe | None) -> tuple[Arrival, str]:
        """Return what to store, and why the body can't be read; empty if it can."""
        received_at = utcnow()
        try:
            notification = parse(body)
        except NotificationError as exc:
            rejected = Arrival(
                instance=instance,
                body=body,
                kind="rejected",
                job_id=None,
                outcome=Outcome.REJECTED,
                received_at=received_at,
            )
            return rejected, str(exc)
        targets: list[str] = []
        if instance in self._targets and probe is None and not _was_forwarded(scope):
            targets = self._targets[instance].of(notification.kind, body)
        arrival = Arrival(
            instance=instance,
            body=body,
            kind=notification.kind.value,
            job_id=notification.job_id,
            outcome=Outcome.PENDING if notification.needs_confirmation else Outcome.IGNORED,
            received_at=received_at,
            targets=targets,
        )
        return arrival, ""

    def _instance(self, scope: Scope, probe: Probe | None) -> str | None:
        """Return the instance that the notification is for; None if the request is not allowed."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        match = _PATH.fullmatch(path)
        if match is None or scope["method"] != "POST":
            return None
        if not self._tokens.accepts(match[2]):
            fault = Arrived.UNKNOWN_TOKEN
        elif match[1] not in self._instances:
            fault = Arrived.UNKNOWN_INSTANCE
        elif not self._access.may_send(scope):
            fault = Arrived.NOT_PERMITTED
        else:
            return match[1]
        if probe is not None:
            probe.arrived(fault)
        return None


def _was_forwarded(scope: Scope) -> bool:
    return any(name == FORWARDED.encode() for name, _ in scope["headers"])


def _receipt(id_: int, status: int) -> Response:
    # Airbyte sends once: on a connection that is kept, its next webhook could meet the close of an idle one.
    headers = {"Connection": "close"}
    return Response(b'{"event":%d}' % id_, status, headers, "application/json")


def _refuse(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status_code=status, headers=headers)

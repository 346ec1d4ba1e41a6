"""The webhook receiver: stores what Airbyte sends, then answers, then has it confirmed.

Airbyte sends once and waits for the answer inside its own job completion: nothing but the store stands between the
two. Its Java client offers an upgrade to HTTP/2 with every POST; the server must hand over the body all the same,
which uvicorn does with h11 and does not with httptools.
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
from airbyte_events.airbyte.notifications import Notification, parse
from airbyte_events.errors import NotificationError, StoreError
from airbyte_events.events import JobRef
from airbyte_events.listener.forwarding.targets import FORWARDED, Targets
from airbyte_events.store.base import EventStore
from airbyte_events.store.records import Outcome
from airbyte_events.web.auth import Tokens
from airbyte_events.web.rate_limit import ClientAccess

logger = logging.getLogger(__name__)

MAX_BODY = 512 * 1024
"""Bytes. Most of Airbyte's bodies have a few thousand; one of a failure with a long reason, which stands there three
times, has had 152 kB, and one of a schema change over 2,000 fields 96 kB."""

MOST_BYTES = 64 * 1024 * 1024
"""Of the notifications that are being received and stored at a time, together. What comes beyond that is refused."""

STORE_SECONDS = 2.0
"""What takes longer to store is refused: Airbyte's job completion waits for the answer."""

MOST_AT_ONCE = 1000
"""Notifications that are being stored at a time: about as many as a store takes in a second. What comes beyond that is
refused at once, so that one in trouble takes up neither the memory nor all connections."""


_PATH = re.compile("/webhooks/([^/]+)/([^/]+)")


def not_found() -> Response:
    """The one 404: a wrong token looks like a path that does not exist."""
    return JSONResponse({"error": "not found"}, status_code=404)


class _TooLarge(Exception):
    """A body of more than :data:`MAX_BODY`."""


class Receiver:
    """``POST /webhooks/{instance}/{token}``, an ASGI application by itself: every other request gets the one 404.

    It does without a framework, whose routing takes longer than all of this. Mounted in another application, it is
    subject to the access log of that one's server, and a webhook token is part of the path.

    :param store: where notifications go.
    :param instances: the names that may be in the URL.
    :param tokens: those that may be in the URL.
    :param access: where requests may come from, and who was refused how often.
    :param targets: by instance, where its notifications are forwarded to.
    :param doubt: called when the store has failed.
    :param kept: called with the seconds that the store took.
    """

    def __init__(
        self,
        store: EventStore,
        instances: Collection[str],
        tokens: Tokens,
        access: ClientAccess | None = None,
        targets: Mapping[str, Targets] | None = None,
        doubt: Callable[[], object] | None = None,
        kept: Callable[[float], object] | None = None,
    ) -> None:
        self._store = store
        self._instances = instances
        self._tokens = tokens
        self._access = access or ClientAccess()
        self._targets = targets or {}
        self._doubt = doubt
        self._kept = kept
        self._storing = 0
        self._bytes = 0
        self._overloaded = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(scope, receive)
        if response is not None:
            await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """Take one notification; None if its sender has gone."""
        if (instance := self._instance(scope)) is None:
            return self._access.refuse(scope, not_found())
        body = bytearray()
        try:
            refusal = await self._receive(scope, receive, body)
            return await self._store_body(scope, instance, bytes(body)) if refusal is None else refusal
        except ClientDisconnect:
            logger.warning("a notification of %s broke off before its end", instance, extra={"instance": instance})
            return None
        except _TooLarge:
            logger.warning(
                "rejected a notification of %s: more than %d bytes", instance, MAX_BODY, extra={"instance": instance}
            )
            return _refuse(413, f"a notification has at most {MAX_BODY} bytes")
        finally:
            self._bytes -= len(body)

    async def _receive(self, scope: Scope, receive: Receive, body: bytearray) -> Response | None:
        """Receive the whole body.

        :param body: what was received is put there.
        :return: a refusal, if others have taken up all the memory that there is for them.
        :raises ClientDisconnect: if it broke off.
        :raises _TooLarge: if it is too long.
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
                return self._overload(f"{MOST_BYTES} bytes of notifications are held")
        return None

    def _overload(self, what: str) -> Response:
        if not self._overloaded:
            logger.error("%s: what comes beyond that is refused", what)
        self._overloaded = True
        return _refuse(503, "too many notifications are being stored", {"Retry-After": "5"})

    async def _store_body(self, scope: Scope, instance: str, body: bytes) -> Response:
        notification: Notification | None = None
        targets: list[str] = []
        fault = ""
        try:
            notification = parse(body)
            if instance in self._targets and not _was_forwarded(scope):
                targets = self._targets[instance].of(notification.kind, body)
        except NotificationError as exc:
            fault = str(exc)
        if self._storing >= MOST_AT_ONCE:
            return self._overload(f"{MOST_AT_ONCE} notifications are being stored")
        self._storing += 1
        try:
            with anyio.fail_after(STORE_SECONDS):
                return await self._keep(instance, body, notification, targets, fault)
        except (StoreError, TimeoutError) as exc:
            logger.error(
                "a notification of %s could not be stored: %s",
                instance,
                str(exc) or "it took too long",
                extra={"instance": instance},
            )
            if self._doubt is not None:
                self._doubt()
            return _refuse(503, "the notification could not be stored", {"Retry-After": "5"})
        finally:
            self._storing -= 1
            self._overloaded = self._overloaded and self._storing > 0

    def _instance(self, scope: Scope) -> str | None:
        """Which instance's notification it is, if it is one and may be."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        match = _PATH.fullmatch(path)
        if match is None or not self._tokens.accepts(match[2]):
            return None
        if match[1] not in self._instances or scope["method"] != "POST" or not self._access.may_send(scope):
            return None
        return match[1]

    async def _keep(
        self, instance: str, body: bytes, notification: Notification | None, targets: Collection[str], fault: str
    ) -> Response:
        if notification is None:
            outcome = Outcome.REJECTED
        elif notification.is_reason_to_ask:
            outcome = Outcome.PENDING
        else:
            outcome = Outcome.IGNORED
        began, arrived_at = time.perf_counter(), utcnow()
        receipt = await self._store.receive(
            instance=instance,
            body=body,
            kind="rejected" if notification is None else notification.kind.value,
            job_id=None if notification is None else notification.job_id,
            outcome=outcome,
            received_at=arrived_at,
            targets=targets,
        )
        if self._kept is not None:
            self._kept(time.perf_counter() - began)
        if notification is not None and notification.job_id is not None:
            ref = JobRef(instance, notification.job_id)
            record("webhook", ref, arrived_at, kind=notification.kind.value, notification=receipt.id)
        if outcome is Outcome.REJECTED:
            about = {"instance": instance, "notification": receipt.id}
            logger.warning("rejected notification %d of %s: %s", receipt.id, instance, fault, extra=about)
            return _refuse(400, fault)
        if outcome is Outcome.PENDING and not receipt.duplicate:
            return _taken(receipt.id, 202)
        return _taken(receipt.id, 200)


def _was_forwarded(scope: Scope) -> bool:
    return any(name == FORWARDED.encode() for name, _ in scope["headers"])


def _taken(id_: int, status: int) -> Response:
    return Response(b'{"event":%d}' % id_, status, media_type="application/json")


def _refuse(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status_code=status, headers=headers)

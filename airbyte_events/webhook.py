"""The webhook receiver: stores what Airbyte sends, then answers, then has it confirmed.

Airbyte sends once and waits for the answer inside its own job completion: nothing but the store stands between the
two. Its Java client offers an upgrade to HTTP/2 with every POST; the server must hand over the body all the same,
which uvicorn does with h11 and does not with httptools.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import anyio
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from airbyte_events.auth import Tokens
from airbyte_events.errors import NotificationError, StoreError
from airbyte_events.events import utcnow
from airbyte_events.inbox import Inbox
from airbyte_events.notifications import Notification, parse
from airbyte_events.store import ANNOUNCING_KINDS, EventStore, Outcome

logger = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
"""Bytes; Airbyte's own bodies have a few thousand."""

STORE_SECONDS = 2.0
"""What takes longer to store is refused: Airbyte's job completion waits for the answer."""


def not_found() -> Response:
    """The one 404: a wrong token looks like a path that does not exist."""
    return JSONResponse({"error": "not found"}, status_code=404)


class Receiver:
    """``POST /webhooks/{instance}/{token}``, an ASGI application by itself: every other request gets the one 404.

    It does without a framework, whose routing takes longer than all of this. Mounted in another application, it is
    subject to the access log of that one's server, and a webhook token is part of the path.

    :param store: where notifications go.
    :param inboxes: by instance name; what was stored is announced there.
    :param tokens: those that may be in the URL.
    """

    def __init__(self, store: EventStore, inboxes: Mapping[str, Inbox], tokens: Tokens) -> None:
        self._store = store
        self._inboxes = inboxes
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(scope, receive)
        if response is not None:
            await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """Take one notification; None if its sender has gone."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        match = re.fullmatch("/webhooks/([^/]+)/([^/]+)", path)
        if match is None or not self._tokens.accepts(match[2]):
            return not_found()
        instance = match[1]
        if instance not in self._inboxes or scope["method"] != "POST":
            return not_found()
        try:
            body = await _body(scope, receive)
        except ClientDisconnect:
            return None
        if body is None:
            return _refuse(413, f"a notification has at most {MAX_BODY} bytes")
        notification: Notification | None = None
        fault = ""
        try:
            notification = parse(body)
        except NotificationError as exc:
            fault = str(exc)
        try:
            with anyio.fail_after(STORE_SECONDS):
                return await self._keep(instance, body, notification, fault)
        except (StoreError, TimeoutError) as exc:
            logger.error("a notification of %s could not be stored: %s", instance, str(exc) or "it took too long")
            return _refuse(503, "the notification could not be stored", {"Retry-After": "5"})

    async def _keep(self, instance: str, body: bytes, notification: Notification | None, fault: str) -> Response:
        if notification is None:
            outcome = Outcome.REJECTED
        elif notification.kind.value in ANNOUNCING_KINDS:
            outcome = Outcome.PENDING
        else:
            outcome = Outcome.IGNORED
        receipt = await self._store.receive(
            instance=instance,
            body=body,
            kind="rejected" if notification is None else notification.kind.value,
            job_id=None if notification is None else notification.job_id,
            outcome=outcome,
            received_at=utcnow(),
        )
        if outcome is Outcome.REJECTED:
            logger.warning("rejected notification %d of %s: %s", receipt.id, instance, fault)
            return _refuse(400, fault)
        if outcome is Outcome.PENDING and not receipt.duplicate:
            self._inboxes[instance].wake()
            return JSONResponse({"event": receipt.id}, status_code=202)
        return JSONResponse({"event": receipt.id}, status_code=200)


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body, or None if it is too long."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:12]) > MAX_BODY:
            return None
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            return None
    return body


def _refuse(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status_code=status, headers=headers)

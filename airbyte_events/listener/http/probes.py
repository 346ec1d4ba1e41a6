"""Probes: tests on their way to the receiver, which a caller of the API has announced.

The receiver responds with the same 404 to every wrong token, instance and address. Only callers with an API token can
read how a probe arrived: so they see where the way of Airbyte's webhooks breaks.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum

from starlette.types import Scope

PARAMETER = "probe"
"""The query parameter of a webhook URL by which a probe is recognised."""

MOST = 100
"""Probes at a time; a new one replaces the oldest."""

KEPT_SECONDS = 600.0

_ID = re.compile(rb"(?:^|&)" + PARAMETER.encode() + rb"=([A-Za-z0-9_-]{22})(?:&|$)")


class Arrived(StrEnum):
    """The result of a probe at the receiver."""

    STORED = "stored"
    REJECTED = "rejected"
    """It has no readable body."""
    NOT_STORED = "not_stored"
    INCOMPLETE = "incomplete"
    """The sender disconnected before the end of the body."""
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105 -- no token
    UNKNOWN_INSTANCE = "unknown_instance"
    NOT_PERMITTED = "not_permitted"
    """The receiver accepts no webhooks from the sender's address."""


@dataclass(slots=True, kw_only=True)
class Probe:
    """A probe, and how it last arrived.

    :param id: 128 random bits.
    :param result: None before it has arrived.
    :param notification: the id in the inbox, if it was stored.
    """

    id: str
    expires_at: float
    result: Arrived | None = None
    bytes: int = 0
    notification: int | None = None

    def arrived(self, result: Arrived, bytes: int = 0, notification: int | None = None) -> None:
        self.result, self.bytes, self.notification = result, bytes, notification


class Probes:
    """The announced probes of this process."""

    def __init__(self) -> None:
        self._probes: OrderedDict[str, Probe] = OrderedDict()

    def announce(self) -> Probe:
        probe = Probe(id=secrets.token_urlsafe(16), expires_at=time.monotonic() + KEPT_SECONDS)
        self._probes[probe.id] = probe
        if len(self._probes) > MOST:
            self._probes.popitem(last=False)
        return probe

    def get(self, id: str) -> Probe | None:
        """Return the probe; None if it was not announced here, or a while ago."""
        probe = self._probes.get(id)
        return None if probe is None or probe.expires_at < time.monotonic() else probe

    def of(self, scope: Scope) -> Probe | None:
        """Return the probe that a request to the receiver is; None for every other request."""
        match = _ID.search(scope.get("query_string", b"")) if self._probes else None
        return None if match is None else self.get(match[1].decode())

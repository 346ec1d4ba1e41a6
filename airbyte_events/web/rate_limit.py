"""Limits for clients: allowed networks, the rate of refusals, the number of concurrent requests."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Callable, Iterable

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from airbyte_events._utils.networks import Address, Networks
from airbyte_events._utils.token_bucket import TokenBucket
from airbyte_events.web.client_address import client_address

logger = logging.getLogger(__name__)

REFUSALS_AT_ONCE = 30
REFUSALS_PER_SECOND = 0.5

MOST_ADDRESSES = 1_024
"""The largest number of addresses to track; the one whose last refusal is oldest is dropped first."""

_OWN_IPV6 = 64  # bits: a site has at least this network and can use any of its addresses


class ClientAccess:
    """Decide which clients may send webhooks, and limit the rate of refusals per address.

    Above the rate, a refusal becomes a 429. Requests with a valid token are neither counted nor limited, so nobody can
    lock out other clients behind the same proxy.

    :param proxies: trusted for a client's address.
    :param allowed: the networks that may send webhooks; all if empty.
    """

    def __init__(
        self,
        *,
        proxies: Iterable[str] = (),
        allowed: Iterable[str] = (),
        most: int = MOST_ADDRESSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proxies = Networks(proxies)
        self._allowed = Networks(allowed)
        self._most = most
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}
        self._logged: set[str] = set()

    @property
    def remembered(self) -> int:
        return len(self._buckets)

    def may_send(self, scope: Scope) -> bool:
        if not self._allowed:
            return True
        address = client_address(scope, self._proxies)
        return address is not None and address in self._allowed

    def refuse(self, scope: Scope, response: Response) -> Response:
        """Return the response to a refused request: ``response``, or a 429 above the rate."""
        address = _site(client_address(scope, self._proxies))
        bucket = self._buckets.pop(address, None)
        if bucket is None:
            bucket = TokenBucket(rate=REFUSALS_PER_SECOND, burst=REFUSALS_AT_ONCE, clock=self._clock)
            if len(self._buckets) >= self._most:
                forgotten = next(iter(self._buckets))
                del self._buckets[forgotten]
                self._logged.discard(forgotten)
        self._buckets[address] = bucket
        if bucket.take():
            return response
        if address not in self._logged:
            self._logged.add(address)
            logger.warning("too many requests without a valid token, responding 429: address=%s", address)
        return JSONResponse({"error": "too many requests"}, 429, {"Retry-After": f"{1 / REFUSALS_PER_SECOND:.0f}"})


class ConcurrencyLimit:
    """Limit the number of concurrent requests; respond 503 to more."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self._left = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._left <= 0:
            headers = {"Retry-After": "5", "Connection": "close"}
            refusal = JSONResponse({"error": "too many requests are in progress"}, 503, headers)
            await refusal(scope, receive, send)
            return
        self._left -= 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._left += 1


def _site(address: Address | None) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address), _OWN_IPV6), strict=False))
    return "unknown" if address is None else str(address)

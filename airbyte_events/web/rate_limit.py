"""What strangers may do, and how often."""

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
"""So many are remembered; the one that was refused longest ago is forgotten first."""

_OWN_IPV6 = 64  # bits: what a single site has at least, and can take any address of


class ClientAccess:
    """Where requests come from: who may send any, and how many of one address were refused.

    From some number on, whatever is refused is answered with 429. Only what is refused counts and is counted: who shows
    a right token is served, however many wrong ones come from the same address, so nobody can lock out who is behind
    the same proxy.

    :param proxies: those whose word on a client's address counts.
    :param allowed: networks that may send webhooks; all if there is none.
    :param most: see :data:`MOST_ADDRESSES`.
    :param clock: seconds.
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
        self._told: set[str] = set()

    @property
    def remembered(self) -> int:
        """How many addresses are remembered."""
        return len(self._buckets)

    def may_send(self, scope: Scope) -> bool:
        """Whether a webhook may come from where this request comes from."""
        if not self._allowed:
            return True
        address = client_address(scope, self._proxies)
        return address is not None and address in self._allowed

    def refuse(self, scope: Scope, answer: Response) -> Response:
        """The answer to a request that is refused.

        :param answer: what it is while there are not too many.
        """
        address = _site(client_address(scope, self._proxies))
        bucket = self._buckets.pop(address, None)
        if bucket is None:
            bucket = TokenBucket(rate=REFUSALS_PER_SECOND, burst=REFUSALS_AT_ONCE, clock=self._clock)
            if len(self._buckets) >= self._most:
                forgotten = next(iter(self._buckets))
                del self._buckets[forgotten]
                self._told.discard(forgotten)
        self._buckets[address] = bucket
        if bucket.take():
            return answer
        if address not in self._told:
            self._told.add(address)
            logger.warning("too many requests without a right token from %s: they are answered with 429", address)
        return JSONResponse({"error": "too many requests"}, 429, {"Retry-After": f"{1 / REFUSALS_PER_SECOND:.0f}"})


class ConcurrencyLimit:
    """Lets a number of requests be under way at a time; 503 to what comes beyond that.

    :param most: how many.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._left = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._left <= 0:
            headers = {"Retry-After": "5", "Connection": "close"}
            refusal = JSONResponse({"error": "too many requests are under way"}, 503, headers)
            await refusal(scope, receive, send)
            return
        self._left -= 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._left += 1


def _site(address: Address | None) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address), _OWN_IPV6), strict=False))
    return "an unknown address" if address is None else str(address)

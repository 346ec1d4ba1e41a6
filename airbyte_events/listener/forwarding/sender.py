"""Send deliveries to one target, and decide what becomes of each."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import anyio
import httpx

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.http import UNPACKED, ResponseRefused, no_cookies, read_body, retry_after, why
from airbyte_events._utils.proxies import async_client
from airbyte_events._utils.times import utcnow
from airbyte_events.listener.forwarding.targets import FORWARDED, DeliveryTarget, Parcel
from airbyte_events.store.records import Attempt, Delivery, DeliveryState

logger = logging.getLogger(__name__)

LONGEST_REST = 60.0
"""The longest delay between two deliveries to a target that fails, and between two tries of the store, in seconds."""

_GATHERING = 4.0
"""Seconds for which a target with a pace waits for others when one is due after a while."""
_LONGEST_RESPONSE = 2048
_LONGEST_RETRY_AFTER = 3600.0
_HEADERS = {"User-Agent": "airbyte-events", FORWARDED: "1", **UNPACKED}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a delivery is retried and given up.

    :param timeout: of one attempt, in seconds.
    :param base: the delay after the first failure, in seconds; it doubles with each further one.
    :param cap: the longest delay in seconds, unless the target asks for more.
    :param give_up_after: the age of a notification at which its delivery is given up.
    :param grace: the age up to which a delivery to an unknown target is left to a listener with newer settings.
    """

    timeout: float = 10.0
    base: float = 2.0
    cap: float = 900.0
    give_up_after: timedelta = timedelta(hours=24)
    grace: timedelta = timedelta(minutes=10)

    def delay(self, failures: int, cap: float) -> float:
        """Return the seconds to wait after so many failures: exponential, with jitter."""
        return pause(failures - 1, first=self.base, longest=cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of an attempt.

    :param retry_after: the seconds that the target asked for.
    """

    state: DeliveryState
    fault: str | None = None
    retry_after: float = 0.0


class Attempted(NamedTuple):
    """What is to be stored, and the seconds until the next delivery to the target."""

    attempts: Sequence[Attempt]
    rest: float = 0.0


@dataclass(eq=False, repr=False)
class Sender:
    """Send to one target, and pause while it fails."""

    target: DeliveryTarget
    http: httpx.AsyncClient
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    on_attempt: Callable[[str, DeliveryState], None] = lambda target, state: None
    on_dead: Callable[[str, int], None] = lambda target, count: None
    _failures: int = field(default=0, init=False)
    _fault: str = field(default="", init=False)
    _turn_at: float = field(default=-math.inf, init=False)
    # For each connection whose order matters: the delivery that is to be retried before the others, and when.
    _first: dict[str, tuple[int, datetime]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.resumed = not self.target.ordered
        """Whether :meth:`resume` has been called, if it must be."""

    def resume(self, due: Iterable[Delivery]) -> None:
        """Take note of deliveries that an earlier process will have retried; the newest first."""
        for delivery in due:
            if delivery.target == self.target.name and delivery.attempts and (key := self.target.order(delivery)):
                self._first[key] = delivery.id, delivery.due_at

    def until_turn(self) -> float:
        """Return the seconds until requests may be sent, and count the next turn from then."""
        now = anyio.current_time()
        turn_at = max(now + min(_GATHERING, self.target.pace), self._turn_at)
        self._turn_at = turn_at + self.target.pace
        return turn_at - now

    async def deliver(self, delivery: Delivery) -> Attempted:
        """Try a delivery once, or postpone it until an earlier one of the same order has been tried again."""
        key = self.target.order(delivery) if self.target.ordered else None
        if key is not None and key in self._first:
            first, due_at = self._first[key]
            # One that was due later comes after the first: that no longer exists.
            if first < delivery.id and delivery.due_at < due_at:
                state, fault = DeliveryState.DUE, f"waits for delivery {first} of the same connection"
                return Attempted([Attempt(delivery=delivery.id, state=state, due_at=due_at, fault=fault, sent=False)])
        attempted = await self.attempt(Parcel.of(delivery))
        if key is not None:
            (attempt,) = attempted.attempts
            if attempt.state is DeliveryState.DUE:
                self._first[key] = delivery.id, attempt.due_at
            else:
                self._first.pop(key, None)
        return attempted

    async def attempt(self, parcel: Parcel) -> Attempted:
        """Try to deliver once. Deliveries that are overdue and fail are given up."""
        now = utcnow()
        overdue = {id_ for id_, at in parcel.received.items() if now - at >= self.retry_policy.give_up_after}
        if len(overdue) == len(parcel.received) and self._failures:
            # The target has just failed for others, so these are given up without an attempt.
            return Attempted(self._dead(overdue, f"given up, as the target fails: {self._fault}"))
        result = await self.send(parcel)
        self.on_attempt(self.target.name, result.state)
        if result.state is not DeliveryState.DUE:
            self._failures = 0
            if result.state is DeliveryState.DEAD:
                return Attempted(self._dead(parcel.received, result.fault))
            logger.debug("delivered: id=%s target=%s", parcel, self.target)
            return Attempted([attempt_of(id_, result.state) for id_ in parcel.received])
        self._failures += 1
        self._fault = result.fault or ""
        rest = max(self.retry_policy.delay(self._failures, LONGEST_REST), result.retry_after)
        dead = self._dead(overdue, f"given up: {result.fault}")
        delay = max(self.retry_policy.delay(parcel.attempts + 1, self.retry_policy.cap), result.retry_after)
        if again := [id_ for id_ in parcel.received if id_ not in overdue]:
            logger.warning(
                "delivery failed, retrying in %.0f s: id=%s target=%s error=%s",
                *(delay, parcel, self.target, result.fault),
            )
        retried = [attempt_of(id_, DeliveryState.DUE, result.fault, after=delay) for id_ in again]
        return Attempted([*dead, *retried], rest)

    def _dead(self, ids: Collection[int], fault: str | None) -> list[Attempt]:
        if ids:
            more = f"+{len(ids) - 1}" if len(ids) > 1 else ""
            logger.error("delivery given up: id=%d%s target=%s error=%s", min(ids), more, self.target, fault)
            self.on_dead(self.target.name, len(ids))
        return [attempt_of(id_, DeliveryState.DEAD, fault) for id_ in ids]

    async def send(self, parcel: Parcel) -> Result:
        """Send a request, once."""
        try:
            content, headers = await self.target.sending(parcel)
        except ValueError as exc:
            return Result(state=DeliveryState.DEAD, fault=f"not sent, as {exc}")
        response = None
        received = b""
        try:
            with anyio.fail_after(self.retry_policy.timeout):
                request = self.http.stream("POST", self.target.url, content=content, headers={**_HEADERS, **headers})
                async with request as response:
                    received = await read_body(response, _LONGEST_RESPONSE)
        except (httpx.HTTPError, TimeoutError, ResponseRefused) as exc:
            # With a status, the target has responded, even if the body failed.
            if response is None:
                return Result(state=DeliveryState.DUE, fault=self._reason(exc))
        return self._result(response, received)

    def _result(self, response: httpx.Response, body: bytes) -> Result:
        status = response.status_code
        if response.is_success:
            return Result(state=DeliveryState.DELIVERED)
        fault = f"it responded {status}" + self._error_code(body)
        if status in (408, 425, 429) or status >= 500:
            wait = min(retry_after(response.headers) or 0.0, _LONGEST_RETRY_AFTER)
            return Result(state=DeliveryState.DUE, fault=fault, retry_after=wait)
        return Result(state=DeliveryState.DEAD, fault=fault + (", a redirect" if response.is_redirect else ""))

    def _error_code(self, body: bytes) -> str:
        """Return the error code of Slack and Google Chat. Other text is not repeated: it may contain the URL."""
        match = re.fullmatch(rb"\s*([a-z_]{3,60})\s*", body) or re.search(rb'"status":\s*"([A-Z_]{3,60})"', body)
        word = match[1].decode() if match else ""
        return f" ({word})" if word and word not in str(self.target.url) else ""

    def _reason(self, exc: Exception) -> str:
        if isinstance(exc, (TimeoutError, httpx.TimeoutException)):
            return f"no response within {self.retry_policy.timeout:g} s"
        return " ".join(f"no response: {why(exc)}".split())[:200]


def attempt_of(delivery: int, state: DeliveryState, fault: str | None = None, *, after: float = 0) -> Attempt:
    """:param after: seconds until it is due again."""
    due_at = utcnow() + timedelta(seconds=after)
    return Attempt(delivery=delivery, state=state, due_at=due_at, fault=fault)


@asynccontextmanager
async def client(targets: Mapping[str, DeliveryTarget], timeout: float) -> AsyncIterator[httpx.AsyncClient]:
    """Open an HTTP client that shares no connections, cookies or credentials, and uses the environment's proxies."""
    httpx_logger = logging.getLogger("httpx")
    masking = _Masking(targets)
    httpx_logger.addFilter(masking)
    try:
        async with async_client(
            follow_redirects=False,
            timeout=timeout,
            cookies=no_cookies(),
            limits=httpx.Limits(max_connections=2 * len(targets) + 1, keepalive_expiry=30),
        ) as http:
            yield http
    finally:
        httpx_logger.removeFilter(masking)


class _Masking(logging.Filter):
    """Mask the URLs of targets in the line that httpx logs for each request."""

    def __init__(self, targets: Mapping[str, DeliveryTarget]) -> None:
        super().__init__()
        self._shown = {str(target.url): str(target) for target in targets.values()}

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(self._shown.get(str(arg), arg) for arg in record.args)
        return True

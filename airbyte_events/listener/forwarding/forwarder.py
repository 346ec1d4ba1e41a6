"""Forwarding: notifications go on to where Airbyte sent them before, such as Slack or Google Chat.

What is to be sent is in the store, kept together with the notification, so it survives whatever happens to the
process. It is sent at least once: a process that ends between an answer and its note in the store sends again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import anyio
import httpx

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.http import UNPACKED, AnswerRefused, no_cookies, read_body, retry_after
from airbyte_events._utils.proxies import async_client
from airbyte_events._utils.times import utcnow
from airbyte_events.errors import StoreError
from airbyte_events.listener.forwarding.targets import FORWARDED, Target, Targets
from airbyte_events.store.base import EventStore
from airbyte_events.store.records import Attempt, Delivery, DeliveryState

logger = logging.getLogger(__name__)

NOT_CONFIGURED = "the target is no longer in the settings"

_PAGE = 20
_LONGEST_ANSWER = 2048
_BACKSTOP = 60.0
"""Seconds after which the store is asked even if it brought no news."""
_LONGEST_REST = 60.0
_LOOK_AGAIN = 30.0
_LONGEST_RETRY_AFTER = 3600.0
_HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": "airbyte-events",
    FORWARDED: "1",
    **UNPACKED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long and how often it is tried.

    :param timeout: seconds that one attempt may take.
    :param base: seconds, about what is waited after a first failure; then twice that, and so on.
    :param cap: seconds, the most that is waited between two attempts unless the target asks for more.
    :param give_up_after: from when the notification was received.
    :param grace: from then, too: what another listener with newer settings took is left to it for so long.
    """

    timeout: float = 10.0
    base: float = 2.0
    cap: float = 900.0
    give_up_after: timedelta = timedelta(hours=24)
    grace: timedelta = timedelta(minutes=10)

    def delay(self, failures: int, cap: float) -> float:
        """Seconds to wait after so many failures: exponential, with jitter."""
        return pause(failures - 1, first=self.base, longest=cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """:param retry_after: seconds that the target asked for."""

    state: DeliveryState
    fault: str | None = None
    retry_after: float = 0.0


class Forwarder:
    """Forwards an instance's notifications. To each target one after the other, in order while nothing fails; no target
    waits for another.

    :param instance: whose.
    :param targets: those in the settings. What waits for others is given up.
    :param store: where deliveries are.
    """

    def __init__(
        self, instance: str, targets: Targets, store: EventStore, *, retry_policy: RetryPolicy | None = None
    ) -> None:
        self._instance = instance
        self._targets = targets
        self._store = store
        self._retry_policy = retry_policy or RetryPolicy()

    async def run(self) -> None:
        """Forward until cancelled, beginning with what an earlier process left. Only one should run at a time."""
        names = frozenset(self._targets)
        async with _client(self._targets, self._retry_policy.timeout) as http, anyio.create_task_group() as tasks:
            tasks.start_soon(self._work, names, self._disown)
            for target in self._targets.values():
                courier = _Courier(target, http, self._retry_policy)
                tasks.start_soon(self._work, names - {target.name}, courier.deliver)

    async def _work(self, but: Collection[str], deal: Callable[[Delivery], Awaitable[tuple[Attempt, float]]]) -> None:
        """Deal with deliveries as they become due, but for those to some targets."""
        troubles = 0
        with self._store.news(f"deliveries/{self._instance}") as news:
            while True:
                try:
                    due = await self._store.due(self._instance, but=but, limit=_PAGE)
                    for delivery in due:
                        attempt, rest = await deal(delivery)
                        await self._note(attempt)
                        if rest:
                            await anyio.sleep(rest)
                            break
                    if not due:
                        with anyio.move_on_after(await self._wait(but)):
                            await news.wait()
                    troubles = 0
                except StoreError as exc:
                    troubles += 1
                    logger.warning("what %s has to forward waits for the store: %s", self._instance, exc)
                    await anyio.sleep(self._retry_policy.delay(troubles, _LONGEST_REST))

    async def _wait(self, but: Collection[str]) -> float:
        due_at = await self._store.next_due(self._instance, but=but)
        seconds = _BACKSTOP if due_at is None else (due_at - utcnow()).total_seconds()
        # Not at once: the store's clock may be behind ours.
        return min(max(seconds, 0.05), _BACKSTOP)

    async def _note(self, attempt: Attempt) -> None:
        """Write it down, however long that takes: what is not written is sent again."""
        troubles = 0
        while True:
            try:
                return await self._store.attempted([attempt])
            except StoreError as exc:
                troubles += 1
                logger.warning("what became of delivery %d is not written yet: %s", attempt.delivery, exc)
                await anyio.sleep(self._retry_policy.delay(troubles, _LONGEST_REST))

    async def _disown(self, delivery: Delivery) -> tuple[Attempt, float]:
        """Give up what waits for a target that is not configured."""
        if utcnow() - delivery.notification.received_at < self._retry_policy.grace:
            return _attempt(delivery, DeliveryState.DUE, NOT_CONFIGURED, after=_LOOK_AGAIN), 0
        logger.error("delivery %d to %s is dead: %s", delivery.id, delivery.target, NOT_CONFIGURED)
        return _attempt(delivery, DeliveryState.DEAD, NOT_CONFIGURED), 0


class _Courier:
    """Sends to one target, and rests while that is in trouble."""

    def __init__(self, target: Target, http: httpx.AsyncClient, retry_policy: RetryPolicy) -> None:
        self._target = target
        self._http = http
        self._retry_policy = retry_policy
        self._failures = 0
        self._fault = ""

    async def deliver(self, delivery: Delivery) -> tuple[Attempt, float]:
        """Try once.

        :return: what came of it, and the seconds until the next delivery may be tried.
        """
        overdue = utcnow() - delivery.notification.received_at >= self._retry_policy.give_up_after
        if overdue and self._failures:
            # Others have just failed: what is given up need not wait for its turn.
            return self._dead(delivery, f"given up, as the target is in trouble: {self._fault}"), 0
        answer = await self._send(delivery.notification.body)
        if answer.state is not DeliveryState.DUE:
            self._failures = 0
            if answer.state is DeliveryState.DEAD:
                return self._dead(delivery, answer.fault), 0
            logger.debug("delivery %d arrived at %s", delivery.id, self._target)
            return _attempt(delivery, answer.state), 0
        self._failures += 1
        self._fault = answer.fault or ""
        rest = max(self._retry_policy.delay(self._failures, _LONGEST_REST), answer.retry_after)
        if overdue:
            return self._dead(delivery, f"given up: {answer.fault}"), rest
        delay = max(self._retry_policy.delay(delivery.attempts + 1, self._retry_policy.cap), answer.retry_after)
        logger.warning("delivery %d to %s is tried again in %.0f s: %s", delivery.id, self._target, delay, answer.fault)
        return _attempt(delivery, DeliveryState.DUE, answer.fault, after=delay), rest

    def _dead(self, delivery: Delivery, fault: str | None) -> Attempt:
        logger.error("delivery %d to %s is dead: %s", delivery.id, self._target, fault)
        return _attempt(delivery, DeliveryState.DEAD, fault)

    async def _send(self, body: bytes) -> _Answer:
        try:
            content = self._target.content(body)
        except ValueError as exc:
            return _Answer(state=DeliveryState.DEAD, fault=f"not sent, as {exc}")
        response = None
        said = b""
        try:
            with anyio.fail_after(self._retry_policy.timeout):
                async with self._http.stream("POST", self._target.url, content=content, headers=_HEADERS) as response:
                    said = await read_body(response, _LONGEST_ANSWER)
        except (httpx.HTTPError, TimeoutError, AnswerRefused) as exc:
            # With a status it has answered, whatever became of the rest.
            if response is None:
                return _Answer(state=DeliveryState.DUE, fault=self._why(exc))
        return self._judge(response, said)

    def _judge(self, response: httpx.Response, said: bytes) -> _Answer:
        status = response.status_code
        if response.is_success:
            return _Answer(state=DeliveryState.DELIVERED)
        fault = f"it answered {status}" + self._word(said)
        if status in (408, 425, 429) or status >= 500:
            wait = min(retry_after(response.headers) or 0.0, _LONGEST_RETRY_AFTER)
            return _Answer(state=DeliveryState.DUE, fault=fault, retry_after=wait)
        return _Answer(state=DeliveryState.DEAD, fault=fault + (", a redirect" if response.is_redirect else ""))

    def _word(self, said: bytes) -> str:
        """The reason in a word, as Slack and Google Chat give it. Other words are not repeated: an error page may hold
        the URL."""
        match = re.fullmatch(rb"\s*([a-z_]{3,60})\s*", said) or re.search(rb'"status":\s*"([A-Z_]{3,60})"', said)
        word = match[1].decode() if match else ""
        return f" ({word})" if word and word not in str(self._target.url) else ""

    def _why(self, exc: Exception) -> str:
        if isinstance(exc, (TimeoutError, httpx.TimeoutException)):
            return f"no answer within {self._retry_policy.timeout:g} s"
        # Those of a connection tell nothing but the fault of host, certificate or network.
        detail = str(exc) if isinstance(exc, httpx.ConnectError) else ""
        return " ".join(f"no answer: {detail or type(exc).__name__}".split())[:200]


def _attempt(delivery: Delivery, state: DeliveryState, fault: str | None = None, *, after: float = 0) -> Attempt:
    """:param after: seconds until it is due again."""
    due_at = utcnow() + timedelta(seconds=after)
    return Attempt(delivery=delivery.id, state=state, due_at=due_at, fault=fault)


@asynccontextmanager
async def _client(targets: Targets, timeout: float) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of their own: with nobody else's connections, cookies or credentials, and through the proxies that
    the environment names."""
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
    """Keeps URLs of targets out of the line that httpx logs, at INFO, for each request."""

    def __init__(self, targets: Targets) -> None:
        super().__init__()
        self._shown = {str(target.url): str(target) for target in targets.values()}

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(self._shown.get(str(arg), arg) for arg in record.args)
        return True

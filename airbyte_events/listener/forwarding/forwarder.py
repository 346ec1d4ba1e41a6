"""Forward notifications to the targets that Airbyte sent them to before, such as Slack or Google Chat.

A delivery is stored together with its notification and is sent at least once: a process that ends between the response
and the update of the store sends it again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import anyio

from airbyte_events._utils.times import utcnow
from airbyte_events.errors import StoreError
from airbyte_events.listener.forwarding.sender import LONGEST_REST, Attempted, RetryPolicy, Sender, attempt_of, client
from airbyte_events.listener.forwarding.targets import DeliveryTarget, Parcel
from airbyte_events.store.base import DeliveryOutbox
from airbyte_events.store.records import Attempt, Delivery, DeliveryState

logger = logging.getLogger(__name__)

NOT_CONFIGURED = "the target is no longer in the settings"

_PAGE = 20
_LARGE_PAGE = 500
_MOST_TOGETHER = 10_000
"""Deliveries that one turn of a target with a pace sends."""
_MOST_CAUSES = 6
"""Requests for causes of their own in one turn; one more for all others."""
_QUIET = 1.0
"""Seconds without another delivery after which it sends: a burst may take a while to be stored."""
_LONGEST_BURST = 30.0
"""Seconds for which it waits for that."""
_BACKSTOP = 60.0
"""The longest time between two reads of the store, in seconds."""
_UNKNOWN_TARGET_DELAY = 30.0


class _Selection(NamedTuple):
    """Which deliveries to process: those to one target, or those to none of several."""

    to: str | None = None
    but: Collection[str] = ()


@dataclass(eq=False, repr=False)
class Forwarder:
    """Forward an instance's notifications: to each target one at a time, in order unless one fails.

    :param targets: those in the settings. Deliveries to other targets are given up.
    :param on_attempt: called with the target's name and the result of each request.
    :param on_dead: called with the target's name and the number of deliveries that were given up.
    """

    instance: str
    targets: Mapping[str, DeliveryTarget]
    store: DeliveryOutbox
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    on_attempt: Callable[[str, DeliveryState], None] = lambda target, state: None
    on_dead: Callable[[str, int], None] = lambda target, count: None

    async def run(self) -> None:
        """Forward until cancelled, deliveries of an earlier process first. Run one per instance."""
        names = frozenset(self.targets)
        async with client(self.targets, self.retry_policy.timeout) as http, anyio.create_task_group() as tasks:
            unknown = _Selection(but=names)
            tasks.start_soon(self._work, unknown, partial(self._each, unknown, self._give_up))
            for target in self.targets.values():
                ours = _Selection(to=target.name)
                sender = Sender(target, http, self.retry_policy, self.on_attempt, self.on_dead)
                step = partial(self._together, target, sender) if target.pace else partial(self._sent, ours, sender)
                tasks.start_soon(self._work, ours, step)

    async def _work(self, selection: _Selection, step: Callable[[], Awaitable[bool]]) -> None:
        """Process deliveries of the selection as they become due.

        :param step: processes some; returns whether there were any.
        """
        failures = 0
        with self.store.news(f"deliveries/{self.instance}") as news:
            while True:
                try:
                    if not await step():
                        with anyio.move_on_after(await self._wait(selection)):
                            await news.wait()
                    failures = 0
                except StoreError as exc:
                    failures += 1
                    logger.warning("could not read deliveries, retrying: instance=%s error=%s", self.instance, exc)
                    await anyio.sleep(self.retry_policy.delay(failures, LONGEST_REST))

    async def _each(self, selection: _Selection, process: Callable[[Delivery], Awaitable[Attempted]]) -> bool:
        due = await self.store.due(self.instance, to=selection.to, but=selection.but, limit=_PAGE)
        for delivery in due:
            if await self._recorded(await process(delivery)):
                break
        return bool(due)

    async def _sent(self, selection: _Selection, sender: Sender) -> bool:
        if not sender.resumed:
            before: int | None = None
            while page := await self.store.deliveries(limit=_LARGE_PAGE, before=before, state=DeliveryState.DUE):
                before = page[-1].id
                sender.resume(page)
            sender.resumed = True
        return await self._each(selection, sender.deliver)

    async def _together(self, target: DeliveryTarget, sender: Sender) -> bool:
        """Wait for the next turn of a target, and send what is due by then: one request for each cause."""
        if not await self.store.due(self.instance, to=target.name, limit=1):
            return False
        await anyio.sleep(sender.until_turn())
        parcels: dict[str, Parcel] = {}
        count = 0
        until = anyio.current_time() + min(_LONGEST_BURST, target.pace)
        while count < _MOST_TOGETHER:
            page = await self.store.due(self.instance, to=target.name, limit=_LARGE_PAGE, skip=count)
            count += len(page)
            for delivery in page:
                cause = target.cause(delivery)
                various = cause not in parcels and len(parcels) >= _MOST_CAUSES
                parcels.setdefault("" if various else cause, Parcel(various=various)).add(delivery)
            if not page or (len(page) < _LARGE_PAGE and anyio.current_time() > until):
                break
            if len(page) < _LARGE_PAGE:
                await anyio.sleep(min(_QUIET, target.pace))
        for parcel in parcels.values():
            if await self._recorded(await sender.attempt(parcel)):
                break
        return True

    async def _recorded(self, attempted: Attempted) -> bool:
        """Store the results, and rest if the target needs it; return whether it did."""
        for start in range(0, len(attempted.attempts), _LARGE_PAGE):
            await self._record(attempted.attempts[start : start + _LARGE_PAGE])
        await anyio.sleep(attempted.rest)
        return attempted.rest > 0

    async def _wait(self, selection: _Selection) -> float:
        due_at = await self.store.next_due(self.instance, to=selection.to, but=selection.but)
        seconds = _BACKSTOP if due_at is None else (due_at - utcnow()).total_seconds()
        # At least a moment: the store's clock may be behind.
        return min(max(seconds, 0.05), _BACKSTOP)

    async def _record(self, attempts: Sequence[Attempt]) -> None:
        """Store the result, however long that takes: without it the delivery is sent again."""
        failures = 0
        while True:
            try:
                return await self.store.attempted(attempts)
            except StoreError as exc:
                failures += 1
                first = attempts[0].delivery
                logger.warning("could not store a delivery's result, retrying: delivery=%d error=%s", first, exc)
                await anyio.sleep(self.retry_policy.delay(failures, LONGEST_REST))

    async def _give_up(self, delivery: Delivery) -> Attempted:
        """Give up a delivery to a target that is not in the settings."""
        if utcnow() - delivery.notification.received_at < self.retry_policy.grace:
            return Attempted([attempt_of(delivery.id, DeliveryState.DUE, NOT_CONFIGURED, after=_UNKNOWN_TARGET_DELAY)])
        logger.error("delivery given up: id=%d target=%s error=%s", delivery.id, delivery.target, NOT_CONFIGURED)
        return Attempted([attempt_of(delivery.id, DeliveryState.DEAD, NOT_CONFIGURED)])

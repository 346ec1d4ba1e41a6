"""The inbox: what webhooks brought waits here, durably, until the API has confirmed it."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.times import utcnow
from airbyte_events._utils.tracing import record
from airbyte_events.errors import AirbyteError, LeaseLost, StoreError
from airbyte_events.events import JobEvent, JobRef, Origin
from airbyte_events.monitor.monitor import BURST, Monitor
from airbyte_events.monitor.observation import Confirmation, Received, outcome_of
from airbyte_events.store.base import EventStore
from airbyte_events.store.records import Outcome, Pending, StoredNotification

logger = logging.getLogger(__name__)

BATCH = 2_000
"""Notifications that are confirmed at a time."""

_LONGEST_REST = 0.05

RETRY_SECONDS = 60.0
"""What could not be confirmed is tried again so often, and more often to begin with."""

GIVE_UP_AFTER = timedelta(hours=1)
"""A notification that can't be confirmed for so long, while others can, is left to polling."""


class Inbox:
    """Confirms an instance's notifications. All that came while one confirmation was under way are the next one.

    :param monitor: of the instance.
    :param store: where its notifications are.
    :param retry: seconds, see :data:`RETRY_SECONDS`.
    :param give_up_after: see :data:`GIVE_UP_AFTER`.
    """

    def __init__(
        self,
        monitor: Monitor,
        store: EventStore,
        *,
        retry: float = RETRY_SECONDS,
        give_up_after: timedelta = GIVE_UP_AFTER,
    ) -> None:
        self._monitor = monitor
        self._store = store
        self._retry = retry
        self._give_up_after = give_up_after
        # Those that Airbyte could not be asked about, all to be tried again together; what comes meanwhile is not
        # held up by them.
        self._aside: set[int] = set()
        self._retries = 0
        self._retry_at = math.inf
        self._answered_at = datetime.min.replace(tzinfo=UTC)

    async def run(self) -> None:
        """Confirm until cancelled what any process has stored, beginning with what an earlier one left.

        :raises LeaseLost: if another process confirms this instance's now.
        """
        with self._store.news(f"inbox/{self._monitor.instance}") as arrived:
            while True:
                try:
                    await self.confirm_pending()
                except LeaseLost:
                    raise
                except StoreError as exc:
                    logger.warning("notifications of %s wait for the store: %s", self._monitor.instance, exc)
                    self._retry_later()
                with anyio.CancelScope(deadline=self._retry_at):
                    await arrived.wait()

    async def confirm_pending(self) -> None:
        """Confirm what waits, and set aside what Airbyte can't be asked about.

        :raises StoreError: if the store can't tell what waits, or can't keep what became of it.
        """
        retry = anyio.current_time() >= self._retry_at
        # The new ones first: over the others Airbyte may fail again. One that turns up among those, because its id was
        # given before theirs and it was stored after them, is found when they are tried again.
        left = await self._try(after=max(self._aside, default=0))
        left |= await self._try(but=left) if retry else self._aside
        self._aside = left
        if not left:
            self._retries, self._retry_at = 0, math.inf
        elif retry or self._retry_at == math.inf:
            self._retry_later()

    async def _try(self, *, after: int = 0, but: Collection[int] = ()) -> set[int]:
        """Confirm what waits with an id above ``after``, but for these.

        :return: those that Airbyte could not be asked about.
        """
        left: set[int] = set()
        more = True
        while more and (page := await self._next(after)):
            after, more = page[-1].id, page.more
            pending = [stored for stored in page if stored.id not in but]
            if not pending:
                continue
            began = anyio.current_time()
            outcomes, unsettled = await self._confirm(pending, page)
            if unsettled:
                await self._store.settle(unsettled, utcnow())
            settled = self._monitor.counters.settled
            for stored in pending:
                if (outcome := outcomes.get(stored.id)) is not None:
                    settled[outcome.value] = settled.get(outcome.value, 0) + 1
                    _tell(stored, outcome)
            if len(pending) >= BURST:
                # In a crowd some of the time is left to the receiver, for whose answers Airbyte waits.
                await anyio.sleep(min(anyio.current_time() - began, _LONGEST_REST))
            left |= {stored.id for stored in pending} - outcomes.keys()
        return left

    def _retry_later(self) -> None:
        self._retries += 1
        self._retry_at = anyio.current_time() + pause(self._retries, longest=self._retry)

    async def _next(self, after: int) -> Pending:
        # What comes while Airbyte may not be asked is asked for together.
        await self._monitor.request_bucket.wait()
        return await self._store.pending(self._monitor.instance, after=after, limit=BATCH)

    async def _confirm(
        self, pending: list[StoredNotification], page: Pending
    ) -> tuple[dict[int, Outcome], dict[int, Outcome]]:
        """Return the outcome of each; one that Airbyte could not be asked about is left out.

        :return: all, and those that are not settled yet.
        """
        told = [Received.of(stored, self._monitor.system.read_notification) for stored in pending]
        confirmation = Confirmation(_by_job(told), known=page.states, announced=page.announced)
        states: dict[int, JobEvent | None] = {}
        looked = False
        try:
            if confirmation:
                states = await self._monitor.confirm(confirmation, Origin.WEBHOOK, confirmation)
        except AirbyteError as exc:
            logger.warning("notifications of %s wait to be confirmed: %s", self._monitor.instance, exc)
        try:
            if sum(map(len, confirmation.values())) < len(told):
                # Old releases do not name the job: something ended, and a look finds what.
                await self._monitor.look_for_webhooks()
                looked = True
        except AirbyteError as exc:
            logger.warning("notifications of %s wait to be confirmed: %s", self._monitor.instance, exc)
        if states or looked:
            self._answered_at = utcnow()
        outcomes = dict(confirmation.settled)
        for each in told:
            if each.id not in outcomes and (outcome := _judge(each, states, looked=looked)) is not None:
                outcomes[each.id] = outcome
            elif each.id not in outcomes and each.received_at + self._give_up_after < self._answered_at:
                outcomes[each.id] = Outcome.UNCONFIRMED
        return outcomes, {id_: outcome for id_, outcome in outcomes.items() if id_ not in confirmation.settled}


def _tell(stored: StoredNotification, outcome: Outcome) -> None:
    # What was confirmed is heard of as an event.
    logger.log(
        logging.DEBUG if outcome is Outcome.CONFIRMED else logging.INFO,
        "notification %d of %s is %s",
        stored.id,
        stored.instance,
        outcome.value,
        extra={"instance": stored.instance, "job_id": stored.job_id, "notification": stored.id},
    )
    if stored.job_id is not None:
        ref = JobRef(stored.instance, stored.job_id)
        record("confirm", ref, stored.received_at, outcome=outcome.value, notification=stored.id)


def _by_job(received: Iterable[Received]) -> dict[int, list[Received]]:
    found: dict[int, list[Received]] = {}
    for each in received:
        if each.notification.job_id is not None:
            found.setdefault(each.notification.job_id, []).append(each)
    return found


def _judge(received: Received, states: Mapping[int, JobEvent | None], *, looked: bool) -> Outcome | None:
    """What became of it, if Airbyte could be asked."""
    told = received.notification
    if told.job_id is None:
        return Outcome.CONFIRMED if looked else None
    if told.job_id not in states:
        return None
    return outcome_of(received, states[told.job_id])

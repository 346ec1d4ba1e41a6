"""The inbox worker: confirms stored notifications by Airbyte's API."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.times import utcnow
from airbyte_events._utils.tracing import record
from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import AirbyteError, LeaseLost, StoreError
from airbyte_events.events import JobEvent, JobRef, Origin
from airbyte_events.monitor.monitor import PUSHED_BURST, Monitor
from airbyte_events.monitor.observation import Confirmation, Received, outcome_of
from airbyte_events.store.base import NotificationInbox
from airbyte_events.store.records import Outcome, Pending, StoredNotification

logger = logging.getLogger(__name__)

BATCH = 2_000
"""Notifications that are confirmed together."""

_LONGEST_REST = 0.05

RETRY_SECONDS = 60.0
"""The longest time between two attempts to confirm a notification; the first ones follow sooner."""

GIVE_UP_AFTER = timedelta(hours=1)
"""A notification that fails for this long while others are confirmed is left to polling."""


class Inbox:
    """Confirm an instance's notifications. Those that arrive during a confirmation are confirmed together next."""

    def __init__(
        self,
        monitor: Monitor,
        store: NotificationInbox,
        *,
        retry: float = RETRY_SECONDS,
        give_up_after: timedelta = GIVE_UP_AFTER,
    ) -> None:
        self._monitor = monitor
        self._store = store
        self._retry = retry
        self._give_up_after = give_up_after
        # Notifications that could not be confirmed, to be retried together. They don't hold up new ones.
        self._postponed: set[int] = set()
        self._retries = 0
        self._fields = {"instance": monitor.instance}
        self._retry_at = math.inf
        self._responded_at = datetime.min.replace(tzinfo=UTC)

    async def run(self) -> None:
        """Confirm notifications of any receiver until cancelled, those that an earlier process left first.

        :raises LeaseLost: if another listener leads this instance now.
        """
        with self._store.news(f"inbox/{self._monitor.instance}") as arrived:
            while True:
                with self._monitor.preceding_polls():
                    await self._confirm_arrived(arrived)
                with anyio.CancelScope(deadline=self._retry_at):
                    await arrived.wait()

    async def _confirm_arrived(self, arrived: Wakeup) -> None:
        """Confirm notifications until no more have arrived meanwhile."""
        while True:
            arrived.clear()
            try:
                await self.confirm_pending()
            except LeaseLost:
                raise
            except StoreError as exc:
                logger.warning("could not read or settle notifications: error=%s", exc, extra=self._fields)
                self._retry_later()
                return
            if not arrived.is_set():
                return

    async def confirm_pending(self) -> None:
        """Confirm all pending notifications, and postpone those for which Airbyte does not respond.

        :raises StoreError: if the store can't be read or written.
        """
        retry = anyio.current_time() >= self._retry_at
        # New ones first, as Airbyte may fail again for the others. A new one with a lower id, which was assigned
        # earlier and committed later, is found when the others are retried.
        failed = await self._try(after=max(self._postponed, default=0))
        failed |= await self._try(but=failed) if retry else self._postponed
        self._postponed = failed
        if not failed:
            self._retries, self._retry_at = 0, math.inf
        elif retry or self._retry_at == math.inf:
            self._retry_later()

    async def _try(self, *, after: int = 0, but: Collection[int] = ()) -> set[int]:
        """Confirm pending notifications with an id above ``after``, except for those in ``but``.

        :return: those for which Airbyte did not respond.
        """
        failed: set[int] = set()
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
                    _log_outcome(stored, outcome)
            if len(pending) >= PUSHED_BURST:
                # In a burst, leave time to the receiver: Airbyte waits for its responses.
                await anyio.sleep(min(anyio.current_time() - began, _LONGEST_REST))
            failed |= {stored.id for stored in pending} - outcomes.keys()
        return failed

    def _retry_later(self) -> None:
        self._retries += 1
        self._retry_at = anyio.current_time() + pause(self._retries, longest=self._retry)

    async def _next(self, after: int) -> Pending:
        # What arrives while the rate limit blocks requests is confirmed by one request.
        await self._monitor.request_bucket.wait()
        return await self._store.pending(self._monitor.instance, after=after, limit=BATCH)

    async def _confirm(
        self, pending: list[StoredNotification], page: Pending
    ) -> tuple[dict[int, Outcome], dict[int, Outcome]]:
        """Return the outcome of each notification; one for which Airbyte did not respond is left out.

        :return: all outcomes, and those that are not settled yet.
        """
        received = [Received.of(stored, self._monitor.system.read_notification) for stored in pending]
        confirmation = Confirmation(_by_job(received), known=page.states, announced=page.announced)
        states: dict[int, JobEvent | None] = {}
        polled = False
        try:
            if confirmation:
                states = await self._monitor.confirm(confirmation, Origin.WEBHOOK, confirmation)
        except AirbyteError as exc:
            logger.warning("could not confirm notifications, retrying: error=%s", exc, extra=self._fields)
        try:
            if nameless := len(received) - sum(map(len, confirmation.values())):
                # Old releases don't name the job: a poll finds which one completed.
                await self._monitor.poll_for_webhooks(nameless)
                polled = True
        except AirbyteError as exc:
            logger.warning("could not confirm notifications, retrying: error=%s", exc, extra=self._fields)
        if states or polled:
            self._responded_at = utcnow()
        outcomes = dict(confirmation.settled)
        for each in received:
            if each.id not in outcomes and (outcome := _outcome(each, states, polled=polled)) is not None:
                outcomes[each.id] = outcome
            elif each.id not in outcomes and each.received_at + self._give_up_after < self._responded_at:
                outcomes[each.id] = Outcome.UNCONFIRMED
        return outcomes, {id_: outcome for id_, outcome in outcomes.items() if id_ not in confirmation.settled}


def _log_outcome(stored: StoredNotification, outcome: Outcome) -> None:
    # A confirmed notification is also logged as an event.
    logger.log(
        logging.DEBUG if outcome is Outcome.CONFIRMED else logging.INFO,
        "notification %s: id=%d kind=%s",
        *(outcome.value, stored.id, stored.kind),
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


def _outcome(received: Received, states: Mapping[int, JobEvent | None], *, polled: bool) -> Outcome | None:
    """Return the outcome of a notification; None if Airbyte did not respond."""
    notification = received.notification
    if notification.job_id is None:
        return Outcome.CONFIRMED if polled else None
    if notification.job_id not in states:
        return None
    return outcome_of(received, states[notification.job_id])

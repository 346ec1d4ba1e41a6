"""The inbox: what webhooks brought waits here, durably, until the API has confirmed it."""

from __future__ import annotations

import logging
import random
from datetime import timedelta

import anyio

from airbyte_events.errors import AirbyteError, AirbyteStatusError, StoreError
from airbyte_events.events import JobEvent, Origin, utcnow
from airbyte_events.monitor import Monitor
from airbyte_events.notifications import Notification, parse
from airbyte_events.store import EventStore, Outcome, StoredNotification

logger = logging.getLogger(__name__)

_BATCH = 500
_BACK_OFF_LIMIT = 60.0

GIVE_UP_AFTER = timedelta(hours=1)
"""A notification that can't be confirmed for so long, while others can, is left to polling."""


class Inbox:
    """Confirms an instance's notifications. All that came while one confirmation was under way are the next one.

    :param monitor: of the instance.
    :param store: where its notifications are.
    """

    def __init__(self, monitor: Monitor, store: EventStore) -> None:
        self._monitor = monitor
        self._store = store
        self._arrived = anyio.Event()

    def wake(self) -> None:
        """There is something new."""
        self._arrived.set()

    async def run(self) -> None:
        """Confirm until cancelled, beginning with what an earlier process left."""
        failures = 0
        while True:
            self._arrived = anyio.Event()
            try:
                left = await self.confirm_pending()
                failures = failures + 1 if left else 0
            except (AirbyteError, StoreError) as exc:
                failures += 1
                logger.warning("notifications of %s wait to be confirmed: %s", self._monitor.instance, exc)
            if failures:
                # What comes meanwhile joins the next try.
                await anyio.sleep(random.uniform(0.5, 1) * min(_BACK_OFF_LIMIT, 2.0 ** min(failures, 10)))  # noqa: S311
            else:
                await self._arrived.wait()

    async def confirm_pending(self) -> bool:
        """Confirm what waits.

        :return: whether some are left that Airbyte could not be asked about.
        :raises AirbyteError: if Airbyte could be asked about none.
        """
        left = False
        while pending := await self._store.pending(self._monitor.instance, limit=_BATCH):
            told = [(stored, parse(stored.body)) for stored in pending]
            outcomes = await self._confirm(told)
            await self._store.settle(outcomes, utcnow())
            if len(outcomes) < len(pending):
                left = True
                break
        return left

    async def _confirm(self, told: list[tuple[StoredNotification, Notification]]) -> dict[int, Outcome]:
        by_job = {notification.job_id: notification for _, notification in told if notification.job_id is not None}
        states: dict[int, JobEvent | None] = {}
        hopeless = False
        try:
            if by_job:
                states = await self._monitor.confirm(by_job, Origin.WEBHOOK, by_job)
            if len(by_job) < len(told) and any(notification.job_id is None for _, notification in told):
                # Old releases do not name the job: something ended, and a look finds what.
                await self._monitor.look()
        except AirbyteStatusError as exc:
            # Airbyte is there and refuses these: after a while they are not worth asking any more.
            hopeless = exc.status_code not in (401, 429)
            if not any(hopeless and _too_old(stored) for stored, _ in told):
                raise
        outcomes = {}
        for stored, notification in told:
            if notification.job_id is None:
                outcomes[stored.id] = Outcome.UNCONFIRMED if hopeless else Outcome.CONFIRMED
            elif notification.job_id in states:
                outcomes[stored.id] = _judge(notification, states[notification.job_id])
            elif _too_old(stored):
                outcomes[stored.id] = Outcome.UNCONFIRMED
        return outcomes


def _judge(notification: Notification, state: JobEvent | None) -> Outcome:
    if state is None:
        return Outcome.UNKNOWN_JOB
    return Outcome.CONFIRMED if state.status is notification.expected_status else Outcome.UNCONFIRMED


def _too_old(stored: StoredNotification) -> bool:
    return utcnow() - stored.received_at > GIVE_UP_AFTER

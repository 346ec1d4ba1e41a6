"""Announce completed jobs: put each into the outbox, for every target whose filters it matches.

A position in the event log is stored once everything before it is in the outbox, so a completion is announced at least
once. The outbox stores the same body once: a leader that repeats the last ones announces none of them twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import anyio

from airbyte_events._utils.backoff import pause
from airbyte_events._utils.json_values import mapping, parse_object, text, whole
from airbyte_events._utils.times import utcnow
from airbyte_events.bus.bus import EventBus, Subscription
from airbyte_events.errors import CursorExpired, LeaseLost, StoreError
from airbyte_events.events import Cursor, EventFilter, JobEvent
from airbyte_events.jobs import Connection, DescribesConnections
from airbyte_events.listener.notify.targets import NotifyTarget, body_of
from airbyte_events.store.base import COMPLETION, EventStore
from airbyte_events.store.records import Arrival, Lease, Outcome

logger = logging.getLogger(__name__)

OLDEST = timedelta(hours=24)
"""A job that completed longer before it was detected is history, and not announced."""

_PAGE = 100
_PAGE_BYTES = 2**20
_STORED_AT_LEAST_EVERY = 3600.0
_LONGEST_REST = 60.0


@dataclass(eq=False, repr=False)
class Announcer:
    """Announce an instance's completions to its targets.

    :param source: the Airbyte instance's URL.
    """

    instance: str
    targets: Mapping[str, NotifyTarget]
    source: str
    bus: EventBus
    store: EventStore
    connections: DescribesConnections

    async def run(self, lease: Lease) -> None:
        """Announce until cancelled, the bus closes or the lease is lost. Run one per instance."""
        failures, expired = 0, False
        while not self.bus.closed:
            try:
                position, since = await self._begin(expired=expired)
                await self._remember(position, since, lease)
                failures, expired = 0, False
                if not self.targets:
                    return
                await self._follow(position, since, lease)
            except LeaseLost:
                return
            except CursorExpired as exc:
                logger.error("completions may not have been announced: instance=%s error=%s", self.instance, exc)
                expired = True
            except StoreError as exc:
                failures += 1
                logger.warning("could not announce completions, retrying: instance=%s error=%s", self.instance, exc)
                await anyio.sleep(pause(failures - 1, first=1, longest=_LONGEST_REST))

    async def _begin(self, *, expired: bool) -> tuple[Cursor, dict[str, int]]:
        """Return where to continue, and for each target the sequence after which it receives events.

        A new target receives those from now on.

        :param expired: whether the log no longer has what follows the stored position: continue with the newest event.
        """
        head = self.bus.cursor
        stored = None if expired else await self.store.recall(f"notify/{self.instance}")
        try:
            values = parse_object((stored or "").encode())
            position = Cursor.parse(text(values.get("position")) or "")
        except ValueError:
            position, values = head, {}
        known = mapping(values.get("since"))
        if not known.keys() & self.targets.keys():
            position = head
        since = {name: whole(known.get(name)) for name in self.targets}
        return position, {name: head.sequence if value is None else value for name, value in since.items()}

    async def _remember(self, position: Cursor, since: Mapping[str, int], lease: Lease) -> None:
        value = json.dumps({"position": str(position), "since": since})
        await self.store.remember(f"notify/{self.instance}", value, lease=lease)

    async def _follow(self, position: Cursor, since: Mapping[str, int], lease: Lease) -> None:
        wanted = EventFilter(instances=frozenset({self.instance}), terminal=True, signals=True)
        with self.bus.subscribe(after=position, wanted=wanted, own=True) as events:
            while True:
                for event in await self._receive(events):
                    await self._announce(event, since)
                await self._remember(events.cursor, since, lease)

    async def _receive(self, events: Subscription) -> list[JobEvent]:
        with anyio.move_on_after(_STORED_AT_LEAST_EVERY):
            try:
                return await events.receive(_PAGE, _PAGE_BYTES)
            except anyio.EndOfStream:
                await anyio.sleep_forever()
        return []

    async def _announce(self, event: JobEvent, since: Mapping[str, int]) -> None:
        if event.finished_at is not None and event.observed_at - event.finished_at > OLDEST:
            return
        names = [
            name
            for name, target in self.targets.items()
            if event.sequence > since[name]
            and target.filter.accepts(event)
            and await self._accepts_connection(target, event)
        ]
        if names:
            await self.store.receive(
                Arrival(
                    instance=self.instance,
                    body=body_of(event, self.source),
                    kind=COMPLETION,
                    job_id=event.ref.job_id if event.signal is None else event.signal.job_id,
                    outcome=Outcome.CONFIRMED,
                    received_at=utcnow(),
                    targets=names,
                )
            )

    async def _accepts_connection(self, target: NotifyTarget, event: JobEvent) -> bool:
        found = Connection()
        if event.connection_id is not None and target.filter.needs_connection(event):
            found = await self.connections.describe_connection(event.connection_id, needed=True, workspace=True)
        return target.filter.accepts_connection(event, found)

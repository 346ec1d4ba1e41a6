"""A store in memory: for tests, rehearsals and triggerers. It forgets the oldest beyond fixed bounds."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from airbyte_events.errors import CursorExpired
from airbyte_events.events import (
    EVERYTHING,
    Cursor,
    EventFilter,
    JobEvent,
    JobRef,
    Verdict,
    annotate,
    reconcile,
    succeed,
)
from airbyte_events.store import ANNOUNCING_KINDS, EventStore, LogPage, Outcome, Receipt, StoredNotification

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class MemoryStore(EventStore):
    """:param capacity: how many events, jobs that have ended, and notifications are kept, each."""

    def __init__(self, *, capacity: int = 10_000) -> None:
        self.epoch = secrets.token_hex(8)
        self._capacity = capacity
        self._head = 0
        self._events: deque[JobEvent] = deque(maxlen=capacity)
        # Active jobs are never forgotten; ended ones in the order of their end.
        self._active: dict[JobRef, JobEvent] = {}
        self._ended: OrderedDict[JobRef, JobEvent] = OrderedDict()
        self._inbox: OrderedDict[int, StoredNotification] = OrderedDict()
        self._digests: dict[bytes, int] = {}
        self._received = 0
        self._values: dict[str, str] = {}
        self._appended = anyio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        return None

    async def append(self, observed: Sequence[JobEvent]) -> list[Verdict]:
        await anyio.lowlevel.checkpoint()
        verdicts = []
        for event in observed:
            known = self._state(event.ref)
            verdict = reconcile(known, event)
            verdicts.append(verdict)
            if verdict is Verdict.NEW:
                self._head += 1
                stored = succeed(known, event, Cursor(self.epoch, self._head))
                self._events.append(stored)
                self._keep(stored)
        if Verdict.NEW in verdicts:
            self._appended.set()
            self._appended = anyio.Event()
        return verdicts

    async def annotate(self, states: Sequence[JobEvent]) -> None:
        await anyio.lowlevel.checkpoint()
        for state in states:
            known = self._state(state.ref)
            if known is not None and known.status is state.status:
                (self._ended if known.terminal else self._active)[state.ref] = annotate(known, state)

    async def head(self) -> int:
        await anyio.lowlevel.checkpoint()
        return self._head

    async def read(self, after: int, *, limit: int = 500, wanted: EventFilter = EVERYTHING) -> LogPage:
        await anyio.lowlevel.checkpoint()
        forgotten = self._head - len(self._events)
        if not forgotten <= after <= self._head:
            raise CursorExpired(f"the log keeps what follows {forgotten} up to {self._head}, not {after}")
        found = list(
            islice((event for event in islice(self._events, after - forgotten, None) if wanted.matches(event)), limit)
        )
        last = found[-1].cursor if len(found) == limit else None
        return LogPage(events=found, position=last.sequence if last else self._head)

    async def changed(self, after: int) -> None:
        while self._head <= after:
            await self._appended.wait()
        await anyio.lowlevel.checkpoint()

    async def states(self, refs: Collection[JobRef]) -> dict[JobRef, JobEvent]:
        await anyio.lowlevel.checkpoint()
        return {ref: state for ref in refs if (state := self._state(ref)) is not None}

    async def jobs(
        self, *, limit: int = 100, before: int | None = None, wanted: EventFilter = EVERYTHING
    ) -> list[JobEvent]:
        await anyio.lowlevel.checkpoint()
        states = [
            (state.cursor.sequence, state)
            for kept in (self._active, self._ended)
            for state in kept.values()
            if state.cursor is not None and (before is None or state.cursor.sequence < before) and wanted.matches(state)
        ]
        states.sort(key=lambda item: item[0], reverse=True)
        return [state for _, state in states[:limit]]

    async def history(self, ref: JobRef) -> list[JobEvent]:
        await anyio.lowlevel.checkpoint()
        return [event for event in self._events if event.ref == ref]

    async def receive(
        self, *, instance: str, body: bytes, kind: str, job_id: int | None, outcome: Outcome, received_at: datetime
    ) -> Receipt:
        await anyio.lowlevel.checkpoint()
        digest = hashlib.sha256(instance.encode() + b"\0" + body).digest()
        if (known := self._digests.get(digest)) is not None:
            return Receipt(id=known, duplicate=True)
        self._received += 1
        self._digests[digest] = self._received
        self._inbox[self._received] = StoredNotification(
            id=self._received,
            instance=instance,
            received_at=received_at,
            kind=kind,
            job_id=job_id,
            body=body,
            outcome=outcome,
        )
        if len(self._inbox) > self._capacity:
            _, oldest = self._inbox.popitem(last=False)
            del self._digests[hashlib.sha256(oldest.instance.encode() + b"\0" + oldest.body).digest()]
        return Receipt(id=self._received, duplicate=False)

    async def pending(self, instance: str, *, limit: int = 500) -> list[StoredNotification]:
        await anyio.lowlevel.checkpoint()
        waiting = (
            item for item in self._inbox.values() if item.outcome is Outcome.PENDING and item.instance == instance
        )
        return list(islice(waiting, limit))

    async def settle(self, outcomes: Mapping[int, Outcome], settled_at: datetime) -> None:
        await anyio.lowlevel.checkpoint()
        for id_, outcome in outcomes.items():
            if (item := self._inbox.get(id_)) is not None:
                done = None if outcome is Outcome.PENDING else settled_at
                self._inbox[id_] = replace(item, outcome=outcome, settled_at=done)

    async def notifications(self, *, limit: int = 100, before: int | None = None) -> list[StoredNotification]:
        await anyio.lowlevel.checkpoint()
        older = (item for id_, item in reversed(self._inbox.items()) if before is None or id_ < before)
        return list(islice(older, limit))

    async def announcements(self, refs: Collection[JobRef]) -> dict[JobRef, StoredNotification]:
        await anyio.lowlevel.checkpoint()
        wanted = set(refs)
        return {
            JobRef(item.instance, item.job_id): item
            for item in self._inbox.values()
            if item.job_id is not None
            and item.kind in ANNOUNCING_KINDS
            and JobRef(item.instance, item.job_id) in wanted
        }

    async def recall(self, key: str) -> str | None:
        await anyio.lowlevel.checkpoint()
        return self._values.get(key)

    async def remember(self, key: str, value: str) -> None:
        await anyio.lowlevel.checkpoint()
        self._values[key] = value

    async def check(self) -> None:
        await anyio.lowlevel.checkpoint()

    def forget_states(self) -> int:
        """Forget what state every job is in; the log stays as it is.

        :return: the log's head.
        """
        self._active.clear()
        self._ended.clear()
        return self._head

    def _state(self, ref: JobRef) -> JobEvent | None:
        return self._active.get(ref) or self._ended.get(ref)

    def _keep(self, state: JobEvent) -> None:
        if not state.terminal:
            self._active[state.ref] = state
            return
        self._active.pop(state.ref, None)
        self._ended[state.ref] = state
        if len(self._ended) > self._capacity:
            self._ended.popitem(last=False)

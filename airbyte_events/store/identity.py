"""Detect that a log lost events.

A log can lose its last events: after a failover to a standby that lacks them, or when a backup is restored. Later
events then reuse sequence numbers that readers have seen. So each process remembers the newest event that it read and
compares it at the next read. If it differs, the log gets a new epoch, which expires all cursors of the old one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from airbyte_events.errors import CursorExpired
from airbyte_events.events import JobEvent

REPLACED = "the log has lost events that were seen, or was replaced"

LOOK_BACK = timedelta(hours=1)
"""Polling resumes from so long before, to find the lost events again."""


class LogReplaced(CursorExpired):
    """The log lost events or has another epoch."""


class Tail(NamedTuple):
    """The newest event that was read.

    :param sequence: of the event; 0 for an empty log.
    :param mark: digest of its stored data; None if it was removed.
    """

    sequence: int
    mark: str | None

    def is_lost(self, head: int, first: int | None, mark: str | None) -> bool:
        """Return whether the event was lost or replaced.

        :param head: the current newest sequence.
        :param first: the oldest retained sequence, None if there is none.
        :param mark: the current digest at the event's sequence.
        """
        if head < self.sequence:
            return True
        pruned = mark is None and (first is None or first > self.sequence)
        return mark != self.mark and not pruned


UNSEEN = Tail(0, None)


@dataclass(slots=True)
class KnownLog:
    """A log as this process knows it: its epoch, which is part of every cursor, and the newest event that was read."""

    epoch: str
    tail: Tail

    def advance(self, tail: Tail) -> None:
        if tail.sequence > self.tail.sequence:
            self.tail = tail


def ensure_kept(after: int, first: int | None, head: int) -> int:
    """Return the last sequence that was removed from a log.

    :param first: the oldest retained sequence, None if there is none.
    :raises CursorExpired: if events after ``after`` were removed, or it is beyond the head.
    """
    removed = head if first is None else first - 1
    if not removed <= after <= head:
        raise CursorExpired(f"the log keeps what follows {removed} up to {head}, not {after}")
    return removed


def tail_of(event: JobEvent) -> Tail:
    return Tail(event.sequence, mark_of(json.dumps(event.data())))


def mark_of(data: object) -> str:
    """Return the digest of an event's stored data."""
    return hashlib.sha256(str(data).encode(errors="surrogateescape")).hexdigest()

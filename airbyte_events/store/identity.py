"""Whether a log is still the one that its readers know.

A log can lose its last events: a standby that had not got them takes over, or the data are put back to what they were.
What is appended then gets sequence numbers that readers have seen for other events. So whoever reads a log remembers
the newest event that it saw, and compares it at the next reading; where it differs the log gets a new epoch, which ends
every cursor of the old one.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import NamedTuple

from airbyte_events.errors import CursorExpired
from airbyte_events.events import JobEvent
from airbyte_events.store.tail import sequence_of

REPLACED = "the log has lost events that were seen, or was replaced"

LOOK_BACK = timedelta(hours=1)
"""What Airbyte changed in this time before events were lost is looked for again."""


class LogReplaced(CursorExpired):
    """The log is not the one that was seen before, or has another epoch."""


class Tail(NamedTuple):
    """The newest event that was seen.

    :param sequence: of the event; 0 stands before the first.
    :param mark: a digest of what is stored of it; None if it is not kept.
    """

    sequence: int
    mark: str | None

    def is_lost(self, head: int, first: int | None, mark: str | None) -> bool:
        """Return whether the event is not the one that was seen.

        :param head: the newest sequence now.
        :param first: the oldest that is kept, None if none is.
        :param mark: that of what is stored under the sequence now.
        """
        if head < self.sequence:
            return True
        pruned = mark is None and (first is None or first > self.sequence)
        return mark != self.mark and not pruned


UNSEEN = Tail(0, None)


def tail_of(event: JobEvent) -> Tail:
    """Return what is seen of an event that was just appended."""
    return Tail(sequence_of(event), mark_of(json.dumps(event.data())))


def mark_of(data: object) -> str:
    """Return the digest of what is stored of an event."""
    return hashlib.sha256(str(data).encode(errors="surrogateescape")).hexdigest()

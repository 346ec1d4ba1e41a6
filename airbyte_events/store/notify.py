"""Wake waiting tasks after changes to a store. Subscribe, read, then wait: no change in between is missed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.store.records import Arrival, Outcome


class Wakeups:
    """The waiting tasks of each topic."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Wakeup]] = {}

    @contextlib.contextmanager
    def subscribe(self, topic: str) -> Iterator[Wakeup]:
        wakeup = Wakeup()
        self._waiting.setdefault(topic, set()).add(wakeup)
        try:
            yield wakeup
        finally:
            self._waiting[topic].discard(wakeup)
            if not self._waiting[topic]:
                del self._waiting[topic]

    def wake(self, topics: Iterable[str] | None = None) -> None:
        """Wake the subscribers of these topics; of all by default."""
        for topic in list(self._waiting) if topics is None else topics:
            for wakeup in self._waiting.get(topic, ()):
                wakeup.set()


def topics_of(arrival: Arrival) -> list[str]:
    """Return the topics to wake after a notification was stored."""
    topics = [f"inbox/{arrival.instance}"] if arrival.outcome is Outcome.PENDING else []
    return [*topics, f"deliveries/{arrival.instance}"] if arrival.targets else topics

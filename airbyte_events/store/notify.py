"""Waiting for news of a store: join, then look, then wait, and nothing that happens in between is missed."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.store.records import Outcome


class Wakeups:
    """Topics, and those who wait for news of them."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Wakeup]] = {}

    @contextlib.contextmanager
    def joined(self, topic: str) -> Iterator[Wakeup]:
        """Wait for news of a topic meanwhile."""
        wakeup = Wakeup()
        self._waiting.setdefault(topic, set()).add(wakeup)
        try:
            yield wakeup
        finally:
            self._waiting[topic].discard(wakeup)
            if not self._waiting[topic]:
                del self._waiting[topic]

    def wake(self, topics: Iterable[str] | None = None) -> None:
        """There is news of these topics, or may be of any."""
        for topic in list(self._waiting) if topics is None else topics:
            for wakeup in self._waiting.get(topic, ()):
                wakeup.set()


def topics_of(instance: str, outcome: Outcome, targets: Collection[str]) -> list[str]:
    """What there is news of once a notification is kept."""
    topics = [f"inbox/{instance}"] if outcome is Outcome.PENDING else []
    return [*topics, f"deliveries/{instance}"] if targets else topics

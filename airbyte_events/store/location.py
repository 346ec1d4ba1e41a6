"""Where a store is, as its URL says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from airbyte_events.store.base import EventStore


class StoreLocation(ABC):
    """The location of one kind of store. Its text is the URL, without a password."""

    kind: ClassVar[str]
    extra: ClassVar[str] = "server"
    """The extra of ``airbyte-events`` that installs its driver."""

    remedy: ClassVar[str] = ""
    """What to do if :meth:`check` fails."""

    durable: ClassVar[bool] = True
    """Whether the store outlives its process."""

    @property
    def file(self) -> Path | None:
        """The file that the store is, on this machine."""
        return None

    @classmethod
    @abstractmethod
    def parse(cls, url: str) -> Self:
        """:raises ValueError: if the text is not such a URL; the message holds nothing of it."""

    @abstractmethod
    def store(self) -> EventStore:
        """Return the store, yet to be opened.

        :raises StoreError: if its driver is not installed.
        """

    @abstractmethod
    async def check(self) -> str:
        """Return how the store looks from here, next to the listener that has it open.

        :raises ImportError: if its driver is not installed.
        :raises StoreError: if the store does not answer, or can't be read.
        """

"""The location of a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from airbyte_events.store.base import EventStore

WRITTEN = "a store in memory is written memory:, a file sqlite:///relative.db or sqlite:////absolute.db"


class StoreLocation(ABC):
    """The location of one kind of store. Its ``str`` is the URL without a password."""

    kind: ClassVar[str]
    extra: ClassVar[str] = "server"
    """The extra of ``airbyte-events`` that installs the driver."""

    remedy: ClassVar[str] = ""
    """Advice if :meth:`check` fails."""

    durable: ClassVar[bool] = True
    """Whether the store outlives its process."""

    @property
    def file(self) -> Path | None:
        """The store's file on this machine, if it is a file."""
        return None

    @classmethod
    @abstractmethod
    def parse(cls, url: str) -> Self:
        """:raises ValueError: if the URL is invalid; the message contains no part of it."""

    @abstractmethod
    def store(self) -> EventStore:
        """Return the store, not yet opened.

        :raises StoreError: if the driver is not installed.
        """

    @abstractmethod
    async def check(self) -> str:
        """Return a description of the store's state. A listener may have it open.

        :raises ImportError: if the driver is not installed.
        :raises StoreError: if the store does not respond or can't be read.
        """

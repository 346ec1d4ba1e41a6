"""Where the files of a SQLite store lie, and whether they are still there."""

from __future__ import annotations

import contextlib
from pathlib import Path

from airbyte_events.errors import StoreError


class Place:
    """Where a store's files lie. SQLite goes on writing to those that it has opened when they are removed or replaced.

    :param named: what a database in WAL mode that is open was named by.
    :param path: the same without symbolic links.
    """

    def __init__(self, named: Path, path: Path) -> None:
        self._files = {each: _identity(each) for each in (named, path.with_name(path.name + "-wal"))}

    @property
    def size(self) -> int:
        """Bytes on disk."""
        size = 0
        for path in self._files:
            with contextlib.suppress(OSError):
                size += path.stat().st_size
        return size

    def ensure(self) -> None:
        """:raises StoreError: if they are not there any more."""
        for path, identity in self._files.items():
            if _identity(path) != identity:
                raise StoreError(f"{path} was removed or replaced while it was in use: put it back, or restart")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StoreError(f"can't find {path}: {exc.strerror}") from exc
    return found.st_dev, found.st_ino

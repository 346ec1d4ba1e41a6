"""Detect that the files of a SQLite store were removed or replaced."""

from __future__ import annotations

import contextlib
from pathlib import Path

from airbyte_events.errors import StoreError


class FileIdentity:
    """The identity of a store's open files. SQLite continues to write to files that were removed or replaced.

    :param given: the path of an open database in WAL mode.
    :param path: the same without symbolic links.
    """

    def __init__(self, given: Path, path: Path) -> None:
        self._files = {each: _inode(each) for each in (given, path.with_name(path.name + "-wal"))}

    @property
    def size(self) -> int:
        """Bytes on disk."""
        size = 0
        for path in self._files:
            with contextlib.suppress(OSError):
                size += path.stat().st_size
        return size

    def ensure(self) -> None:
        """:raises StoreError: if a file was removed or replaced."""
        for path, inode in self._files.items():
            if _inode(path) != inode:
                raise StoreError(f"{path} was removed or replaced while it was in use: put it back, or restart")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StoreError(f"can't find {path}: {exc.strerror}") from exc
    return found.st_dev, found.st_ino

"""The files of a SQLite store: a lock that keeps a second process out, even by another path, and their identity."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from airbyte_events.errors import StoreError, StoreLocked

_LOCKED_BYTE = 2**62
"""Beyond the maximum size of a database and the bytes that SQLite locks."""


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the exclusive right to write to a file, which is created with its folder if missing.

    :param path: without symbolic links.
    :raises StoreLocked: if another process, or this one, holds it.
    :raises StoreError: if the file has several hard links, each of which would have its own write-ahead log
        (https://sqlite.org/howtocorrupt.html#_multiple_links_to_the_same_file).
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock_file = stack.enter_context(path.with_name(path.name + ".lock").open("a+"))
            try:
                fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                lock_file.seek(0)
                raise _in_use(path, lock_file.read().strip() or "unknown") from exc
            # Closed after SQLite's own descriptor: closing any descriptor of a file drops the process's locks on it.
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            stack.callback(os.close, file)
            if (names := os.fstat(file).st_nlink) > 1:
                raise StoreError(
                    f"the store {path} has {names} names (hard links), each of which would have a write-ahead log of"
                    " its own: remove the others, or name a copy"
                )
            if sys.platform == "linux":
                # A lock on the file itself: a bind-mounted file has another folder.
                try:
                    _lock_byte(file)
                except BlockingIOError as exc:
                    raise _in_use(path, "unknown, by another name") from exc
        except OSError as exc:
            raise StoreError(f"can't open the store {path}: {exc.strerror}") from exc
        lock_file.truncate(0)
        lock_file.write(str(os.getpid()))
        lock_file.flush()
        yield


def _lock_byte(file: int) -> None:
    # A lock of the open file description, which does not affect SQLite's own process locks: see F_OFD_SETLK in
    # https://man7.org/linux/man-pages/man2/fcntl_locking.2.html. The fields are type, whence, start, length, process.
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _LOCKED_BYTE, 1, 0))


def _in_use(path: Path, holder: str) -> StoreLocked:
    return StoreLocked(f"the store {path} is in use by process {holder}: stop it, or name another file")


class FileIdentity:
    """The identity of a store's open files. SQLite continues to write to files that were removed or replaced.

    :param given: the path of an open database in WAL mode.
    :param path: the same without symbolic links.
    """

    def __init__(self, given: Path, path: Path) -> None:
        self._files = {each: _inode(each) for each in (given, path.with_name(path.name + "-wal"))}

    @property
    def size(self) -> int:
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

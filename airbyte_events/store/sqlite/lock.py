"""The lock that keeps a second process from writing to a SQLite file, whatever name it knows the file by."""

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
"""Beyond what a database can be long, and beyond the bytes that SQLite locks itself."""


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the right to write to a file meanwhile. The file is made if it is not there, and so is its folder.

    :param path: without symbolic links.
    :raises StoreLocked: if another process, or this one, has it.
    :raises StoreError: if the file has another name, too: by that one it would have another write-ahead log
        (https://sqlite.org/howtocorrupt.html#_multiple_links_to_the_same_file).
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = stack.enter_context(path.with_name(path.name + ".lock").open("a+"))
            try:
                fcntl.flock(beside, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                beside.seek(0)
                raise _in_use(path, beside.read().strip() or "unknown") from exc
            # Open until SQLite is done with the file: a process that closes a file loses what SQLite has locked of it.
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            stack.callback(os.close, file)
            if (names := os.fstat(file).st_nlink) > 1:
                raise StoreError(
                    f"the store {path} has {names} names (hard links), each of which would have a write-ahead log of"
                    " its own: remove the others, or name a copy"
                )
            if sys.platform == "linux":
                # By the file itself: one that is mounted by itself has another folder.
                try:
                    _lock_byte(file)
                except BlockingIOError as exc:
                    raise _in_use(path, "unknown, by another name") from exc
        except OSError as exc:
            raise StoreError(f"can't open the store {path}: {exc.strerror}") from exc
        beside.truncate(0)
        beside.write(str(os.getpid()))
        beside.flush()
        yield


def _lock_byte(file: int) -> None:
    # Of the open file, not of the process: SQLite's own locks of the same file are left alone, see F_OFD_SETLK in
    # https://man7.org/linux/man-pages/man2/fcntl_locking.2.html. In the order of struct flock: type, whence, start,
    # length, process.
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _LOCKED_BYTE, 1, 0))


def _in_use(path: Path, holder: str) -> StoreLocked:
    return StoreLocked(f"the store {path} is in use by process {holder}: stop it, or name another file")

"""A disk that keeps only what was synced, under a SQLite that does not know.

The file system's operations are recorded by a VFS between APSW's own SQLite and the real files; what a power loss at
any point would have left is worked out from the record. What was written since a file's last sync is there, or not,
512 bytes by 512 bytes, in any combination; a file that was made since its folder's last sync may be missing, and one
that was deleted may be back. SQLite's VFS for Unix syncs the folder with the first sync of a journal or WAL that it has
made.

It proves that what a store acknowledges, SQLite had been told to sync, in the right order, by the store's statements
and settings. It can't prove that disks and file systems do what they are told, nor does it run the SQLite that Python
brings: that one reads what is left.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import apsw

SECTOR = 512


class Operation(NamedTuple):
    """What was done to a file; ``offset`` is a size where it was cut off."""

    what: str
    name: str
    offset: int = 0
    data: bytes = b""


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[Operation] = field(default_factory=list)
    named: bool = False
    """The folder has it durably."""

    def sync(self) -> None:
        for operation in self.unsynced:
            _apply(self.durable, operation)
        self.unsynced.clear()

    def after_power_loss(self, dice: random.Random) -> bytes:
        left = bytearray(self.durable)
        share = dice.choice((0, 0.1, 0.5, 0.9, 1))
        for operation in self.unsynced:
            for part in _sectors(operation):
                if dice.random() < share:
                    _apply(left, part)
        return bytes(left)


class Disk(apsw.VFS):
    """Records what SQLite does to files.

    :param lies: syncs do nothing.
    """

    def __init__(self, *, lies: bool = False) -> None:
        self._vfs = f"disk-{id(self)}"
        super().__init__(self._vfs, "unix")
        self.operations: list[Operation] = []
        self.lies = lies
        self._opened: set[str] = set()

    def connect(self, path: Path) -> sqlite3.Connection:
        """What :func:`sqlite3.connect` would give, as far as a store uses it."""
        return _Connection(apsw.Connection(str(path), vfs=self._vfs))  # type: ignore[return-value]

    def mark(self, name: str) -> None:
        """Note that something was acknowledged."""
        self.operations.append(Operation("mark", name))

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        # A store may have made the file already, empty, to lock it.
        if not path.exists() or path.name not in self._opened:
            self._opened.add(path.name)
            self.operations.append(Operation("create", path.name))
        return _Recorded(self, name, path.name, flags)

    def xDelete(self, name: str, sync_folder: bool) -> None:  # noqa: N802
        self.operations.append(Operation("delete for good" if sync_folder else "delete", Path(name).name))
        super().xDelete(name, sync_folder)

    def power_losses(self, points: Iterable[int], dice: random.Random) -> Iterator[tuple[list[str], dict[str, bytes]]]:
        """What had been marked, and the files that are left, after each of these numbers of operations, in order."""
        files: dict[str, _File] = {}
        deleted: dict[str, _File] = {}
        marks: list[str] = []
        done = 0
        for point in sorted(points):
            for operation in self.operations[done:point]:
                if operation.what == "mark":
                    marks.append(operation.name)
                elif operation.what == "create":
                    files[operation.name] = _File()
                    deleted.pop(operation.name, None)
                elif operation.what.startswith("delete"):
                    gone = files.pop(operation.name)
                    if operation.what == "delete" and gone.named:
                        deleted[operation.name] = gone
                elif operation.what != "sync":
                    files[operation.name].unsynced.append(operation)
                elif not self.lies:
                    self._sync(operation.name, files, deleted)
            done = point
            left = {name: each for name, each in files.items() if each.named or dice.random() < 0.5}
            left |= {name: each for name, each in deleted.items() if dice.random() < 0.5}
            yield list(marks), {name: each.after_power_loss(dice) for name, each in left.items()}

    @staticmethod
    def _sync(name: str, files: dict[str, _File], deleted: dict[str, _File]) -> None:
        files[name].sync()
        if name.endswith(("-journal", "-wal")) and not files[name].named:
            for each in files.values():
                each.named = True
            deleted.clear()


class _Recorded(apsw.VFSFile):
    def __init__(self, disk: Disk, given: Any, name: str, flags: list[int]) -> None:
        self._operations, self._name = disk.operations, name
        super().__init__("unix", given, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._operations.append(Operation("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._operations.append(Operation("truncate", self._name, size))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._operations.append(Operation("sync", self._name))


def _sectors(operation: Operation) -> Iterator[Operation]:
    if operation.what == "truncate":
        yield operation
        return
    at, end = operation.offset, operation.offset + len(operation.data)
    while at < end:
        upto = min(end, (at // SECTOR + 1) * SECTOR)
        yield Operation("write", operation.name, at, operation.data[at - operation.offset : upto - operation.offset])
        at = upto


def _apply(content: bytearray, operation: Operation) -> None:
    if operation.what == "truncate":
        del content[operation.offset :]
        return
    end = operation.offset + len(operation.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[operation.offset : end] = operation.data


class _Rows:
    """A cursor that has run to its end."""

    def __init__(self, rows: list[tuple[Any, ...]], lastrowid: int, rowcount: int) -> None:
        self._rows = iter(rows)
        self.lastrowid, self.rowcount = lastrowid, rowcount

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)


class _Connection:
    """APSW's connection with the methods of Python's own, and its errors."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> _Rows:
        try:
            rows = [tuple(row) for row in self._connection.execute(statement, values or None)]
        except apsw.Error as exc:
            raise sqlite3.OperationalError(str(exc)) from exc
        return _Rows(rows, self._connection.last_insert_rowid(), self._connection.changes())

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> _Rows:
        done = [self.execute(statement, row) for row in rows]
        return _Rows([], 0, sum(each.rowcount for each in done))

    def executescript(self, script: str) -> _Rows:
        return self.execute(script)

    def create_function(self, name: str, narg: int, func: Callable[..., Any], *, deterministic: bool) -> None:
        self._connection.create_scalar_function(name, func, narg, deterministic=deterministic)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def close(self) -> None:
        self._connection.close()

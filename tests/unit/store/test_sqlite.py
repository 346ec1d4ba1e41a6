"""What the SQLite file promises beyond what every store does."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import sqlite3
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from airbyte_events.errors import CursorExpired, StoreError, StoreLocked
from airbyte_events.events import JobRef, JobStatus
from airbyte_events.store.base import EventStore
from airbyte_events.store.reconcile import Verdict
from airbyte_events.store.sqlite.connection import SQLiteFile
from airbyte_events.store.sqlite.store import SQLiteStore
from support.stored import NOON, event, receipt_of, received, sequences

pytestmark = pytest.mark.anyio


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


class TestSQLiteFile:
    async def test_i1_syncs_every_transaction(self, tmp_path: Path) -> None:
        async with SQLiteFile(tmp_path / "events.db") as file:
            settings = [await file.transact(partial(pragma, name=name)) for name in ("journal_mode", "synchronous")]
        assert settings == ["wal", 2]

    async def test_many_callers_share_a_transaction(self, tmp_path: Path) -> None:
        async with SQLiteFile(tmp_path / "events.db") as file:
            begun: list[str] = []
            await file.transact(lambda c: c.set_trace_callback(lambda s: begun.append(s) if "BEGIN" in s else None))
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(file.transact, lambda c: c.execute("INSERT INTO meta VALUES (random(), 0)"))
            await file.transact(lambda c: c.set_trace_callback(None))
        assert len(begun) < 10

    async def test_who_writes_does_not_wait_for_who_reads(self, tmp_path: Path) -> None:
        """Nor the other way round; what was written before is read."""
        written = threading.Event()
        seen: list[int] = []

        def count(connection: sqlite3.Connection) -> int:
            assert written.wait(10)
            return int(connection.execute("SELECT count(*) FROM meta WHERE key = 'x'").fetchone()[0])

        async with SQLiteFile(tmp_path / "events.db") as file, anyio.create_task_group() as tasks:

            async def read() -> None:
                seen.append(await file.read(count))

            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(30):
                await file.transact(lambda c: c.execute("INSERT INTO meta VALUES ('x', 0)"))
            written.set()
            await read()
        assert seen[-1] == 1

    async def test_a_reader_can_not_write(self, tmp_path: Path) -> None:
        async with SQLiteFile(tmp_path / "events.db") as file:
            with pytest.raises(StoreError, match="readonly"):
                await file.read(lambda c: c.execute("INSERT INTO meta VALUES ('x', 0)"))
            assert await file.read(lambda c: c.execute("SELECT 1").fetchone()) == (1,)

    async def test_what_was_not_begun_when_its_asker_left_is_not_done(self, tmp_path: Path) -> None:
        release = threading.Event()
        done: list[int] = []
        async with SQLiteFile(tmp_path / "events.db") as file, anyio.create_task_group() as tasks:
            tasks.start_soon(file.transact, lambda _: release.wait(10))
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0.05):
                await file.transact(lambda _: done.append(1))
            release.set()
            await file.transact(lambda _: done.append(2))
        assert done == [2]

    async def test_what_fails_fails_alone(self, tmp_path: Path) -> None:
        outcomes: dict[str, object] = {}

        def insert(key: str, then: str) -> Callable[[sqlite3.Connection], None]:
            def run(connection: sqlite3.Connection) -> None:
                connection.execute("INSERT INTO meta VALUES (?, 0)", (key,))
                if then == "raise":
                    raise LookupError(key)
                connection.execute(then)

            return run

        async def attempt(file: SQLiteFile, key: str, then: str) -> None:
            try:
                outcomes[key] = await file.transact(insert(key, then))
            except (StoreError, LookupError) as exc:
                outcomes[key] = type(exc)

        async with SQLiteFile(tmp_path / "events.db") as file:
            async with anyio.create_task_group() as tasks:
                for key, then in (("a", "SELECT 1"), ("b", "raise"), ("c", "SELECT * FROM nowhere"), ("d", "SELECT 1")):
                    tasks.start_soon(attempt, file, key, then)
            kept = await file.transact(lambda c: [row[0] for row in c.execute("SELECT key FROM meta ORDER BY key")])
        assert outcomes == {"a": None, "b": LookupError, "c": StoreError, "d": None}
        assert kept == ["a", "d", "epoch"]

    async def test_a_transaction_that_is_lost_fails_for_all_in_it(self, tmp_path: Path) -> None:
        """SQLite gives up the whole transaction where the disk is full, for one."""
        outcomes: dict[str, object] = {}

        async def attempt(file: SQLiteFile, key: str, conflict: str) -> None:
            try:
                sql = f"INSERT OR {conflict} INTO meta VALUES (?, 0)"
                await file.transact(lambda c: c.execute(sql, (key,)))
                outcomes[key] = "stored"
            except StoreError:
                outcomes[key] = "failed"

        async with SQLiteFile(tmp_path / "events.db") as file:
            async with anyio.create_task_group() as tasks:
                # Taken first, so that the others share a transaction.
                tasks.start_soon(attempt, file, "first", "ABORT")
                await anyio.lowlevel.checkpoint()
                for key, conflict in (("a", "ABORT"), ("epoch", "ROLLBACK"), ("z", "ABORT")):
                    tasks.start_soon(attempt, file, key, conflict)
            kept = await file.transact(lambda c: {row[0] for row in c.execute("SELECT key FROM meta")})
        assert kept == {"epoch"} | {key for key, outcome in outcomes.items() if outcome == "stored"}
        assert outcomes["epoch"] == "failed"

    async def test_i1_a_full_disk_refuses_and_keeps_what_was_promised(self, tmp_path: Path) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        stored = 0

        async def fill(store: EventStore) -> None:
            nonlocal stored
            for _ in range(1_000):
                await received(store, os.urandom(4_000))
                stored += 1

        async with SQLiteStore(tmp_path / "events.db") as store:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
            try:
                with pytest.raises(StoreError, match="the store failed"):
                    await fill(store)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert len(await store.notifications(limit=1_000)) == stored > 0
            await received(store)
        async with SQLiteStore(tmp_path / "events.db") as store:
            assert len(await store.notifications(limit=1_000)) == stored + 1

    async def test_a_second_opening_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        async with SQLiteStore(path) as store:
            with pytest.raises(StoreLocked, match=rf"{path} is in use by process {os.getpid()}: stop it"):
                async with SQLiteStore(path):
                    pass
            await store.check()
        async with SQLiteStore(path):
            pass

    async def test_a_second_process_is_refused_until_the_first_is_gone(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        code = (
            "import sys, pathlib, anyio\n"
            "from airbyte_events.store.sqlite.store import SQLiteStore\n"
            "async def main():\n"
            "    async with SQLiteStore(pathlib.Path(sys.argv[1])) as store:\n"
            "        await store.remember('x', '1')\n"
            "        print('open', flush=True)\n"
            "        await anyio.sleep_forever()\n"
            "anyio.run(main)\n"
        )
        async with await anyio.open_process([sys.executable, "-c", code, str(path)]) as process:
            assert process.stdout is not None
            assert (await process.stdout.receive()).startswith(b"open")
            with pytest.raises(StoreLocked, match=f"process {process.pid}"):
                async with SQLiteStore(path):
                    pass
            process.kill()
            await process.wait()
        async with SQLiteStore(path) as store:
            assert await store.recall("x") == "1"

    @pytest.mark.parametrize("linked", ["file", "folder", "chain", "to what is not there yet"])
    async def test_i1_a_symbolic_link_leads_no_second_listener_in(self, tmp_path: Path, linked: str) -> None:
        path, other = tmp_path / "data" / "events.db", tmp_path / "other.db"
        path.parent.mkdir()
        if linked == "folder":
            (tmp_path / "same").symlink_to(path.parent, target_is_directory=True)
            other = tmp_path / "same" / "events.db"
        elif linked == "chain":
            (tmp_path / "between.db").symlink_to("data/events.db")
            other.symlink_to("between.db")
        else:
            other.symlink_to(path)
        first, second = (other, path) if linked == "to what is not there yet" else (path, other)
        async with SQLiteStore(first) as store:
            await store.append([event(1)])
            with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
                async with SQLiteStore(second):
                    pass
            await store.append([event(2)])
        async with SQLiteStore(second) as store:
            assert await store.head() == 2
        assert sorted(each.name for each in path.parent.iterdir()) == ["events.db", "events.db.lock"]

    @pytest.mark.parametrize("when", ["before", "while in use"])
    async def test_i1_a_hard_link_leads_no_second_listener_in(self, tmp_path: Path, when: str) -> None:
        path, other = tmp_path / "events.db", tmp_path / "elsewhere" / "other.db"
        other.parent.mkdir()
        async with SQLiteStore(path) as store:
            await store.append([event(1)])
            other.hardlink_to(path)
            if when == "while in use":
                with pytest.raises(StoreError, match=rf"{other} has 2 names \(hard links\)"):
                    async with SQLiteStore(other):
                        pass
                await store.append([event(2)])
        for each in (path, other):
            with pytest.raises(StoreError, match="2 names"):
                async with SQLiteStore(each):
                    pass
        other.unlink()
        async with SQLiteStore(path) as store:
            assert await store.head() == (2 if when == "while in use" else 1)

    @pytest.mark.skipif(sys.platform != "linux", reason="needs mounts of one file")
    async def test_i1_a_file_that_is_mounted_by_itself_leads_no_second_listener_in(self, tmp_path: Path) -> None:
        path, other = tmp_path / "events.db", tmp_path / "elsewhere" / "events.db"
        other.parent.mkdir()
        other.touch()
        async with SQLiteStore(path) as store:
            mounted = await anyio.run_process(["mount", "--bind", str(path), str(other)], check=False)
            if mounted.returncode:
                pytest.skip("no file can be mounted here")
            try:
                code = (
                    "import pathlib, sys, anyio\n"
                    "from airbyte_events.store.sqlite.store import SQLiteStore\n"
                    "async def main():\n"
                    "    async with SQLiteStore(pathlib.Path(sys.argv[1])): pass\n"
                    "anyio.run(main)\n"
                )
                second = await anyio.run_process([sys.executable, "-c", code, str(other)], check=False)
                assert b"StoreLocked" in second.stderr
                assert b"by another name" in second.stderr
            finally:
                await anyio.run_process(["umount", "--lazy", str(other)])
            await store.append([event(1)])

    async def test_a_link_that_leads_elsewhere_meanwhile_is_noticed(self, tmp_path: Path) -> None:
        (tmp_path / "other.db").write_text("")
        path = tmp_path / "link.db"
        path.symlink_to("events.db")
        async with SQLiteStore(path) as store:
            path.unlink()
            path.symlink_to("other.db")
            with pytest.raises(StoreError, match="replaced"):
                await store.check()

    async def test_a_newer_schema_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        async with SQLiteStore(path):
            pass
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        with pytest.raises(StoreError, match=r"newer airbyte-events \(schema 99.*upgrade"):
            async with SQLiteStore(path):
                pass

    @pytest.mark.parametrize("fault", ["folder", "below a file", "no database", "foreign database"])
    async def test_what_can_not_be_opened_is_named(self, tmp_path: Path, fault: str) -> None:
        path = tmp_path / "events.db"
        if fault == "folder":
            path.mkdir()
        elif fault == "below a file":
            path.write_text("")
            path = path / "events.db"
        elif fault == "no database":
            path.write_text("diary " * 1_000)
        else:
            connection = sqlite3.connect(path)
            connection.execute("CREATE TABLE recipes (what TEXT)")
            connection.close()
        with pytest.raises(StoreError, match=str(path)):
            async with SQLiteStore(path):
                pass

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
    @pytest.mark.parametrize("what", ["file", "folder"])
    async def test_a_read_only_path_is_named(self, tmp_path: Path, what: str) -> None:
        path = tmp_path / "data" / "events.db"
        async with SQLiteStore(path):
            pass
        target = path if what == "file" else path.parent
        target.chmod(0o500)
        try:
            with pytest.raises(StoreError, match=str(path)):
                async with SQLiteStore(path):
                    pass
        finally:
            target.chmod(0o700)

    async def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        async with SQLiteStore(tmp_path / "new" / "folder" / "events.db") as store:
            pass
        with pytest.raises(StoreError, match="closed"):
            await store.head()

    async def test_what_was_begun_before_the_end_is_finished(self, tmp_path: Path) -> None:
        async with anyio.create_task_group() as tasks, SQLiteStore(tmp_path / "events.db") as store:
            for number in range(20):
                tasks.start_soon(received, store, str(number).encode())
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
        async with SQLiteStore(tmp_path / "events.db") as store:
            assert len(await store.notifications()) == 20


# As version 1 made it.
VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    instance TEXT NOT NULL, job_id INTEGER NOT NULL, connection_id TEXT, status TEXT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX events_by_job ON events (instance, job_id);
CREATE TABLE jobs (
    instance TEXT NOT NULL, job_id INTEGER NOT NULL, connection_id TEXT, status TEXT NOT NULL,
    sequence INTEGER NOT NULL, data TEXT NOT NULL,
    PRIMARY KEY (instance, job_id)
) WITHOUT ROWID;
CREATE INDEX jobs_by_sequence ON jobs (sequence);
CREATE TABLE notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance TEXT NOT NULL, digest BLOB NOT NULL UNIQUE, received_at TEXT NOT NULL, kind TEXT NOT NULL,
    job_id INTEGER, body BLOB NOT NULL, outcome TEXT NOT NULL, settled_at TEXT
);
CREATE INDEX notifications_pending ON notifications (instance, id) WHERE outcome = 'pending';
CREATE INDEX notifications_by_job ON notifications (instance, job_id) WHERE job_id IS NOT NULL;
INSERT INTO meta VALUES ('epoch', '5f3a9c1e5f3a9c1e'), ('looked_at/default', '2024-01-01T12:00:00.000000Z');
PRAGMA journal_mode = WAL;
PRAGMA user_version = 1;
"""


def of_version_1(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    with connection:
        for status in ("running", "succeeded"):
            data = json.dumps(event(1, JobStatus(status)).data())
            row = ("default", 1, None, status, data)
            connection.execute(
                "INSERT INTO events (instance, job_id, connection_id, status, data) VALUES (?,?,?,?,?)", row
            )
        connection.execute("INSERT INTO jobs VALUES (?,?,?,?,2,?)", row)
        digest = hashlib.sha256(b"default\0body").digest()
        notification = ("default", digest, "2024-01-01T12:00:00.000000Z", "success", 1, b"body", "pending")
        connection.execute(
            "INSERT INTO notifications (instance, digest, received_at, kind, job_id, body, outcome)"
            " VALUES (?,?,?,?,?,?,?)",
            notification,
        )
    connection.close()


class TestMigration:
    async def test_i5_a_file_of_version_1_goes_on(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        of_version_1(path)
        for _ in range(2):
            async with SQLiteStore(path) as store:
                assert (store.epoch, await store.head()) == ("5f3a9c1e5f3a9c1e", 2)
                assert [each.status.value for each in (await store.read(0)).events] == ["running", "succeeded"]
                assert [each.body for each in await store.pending("default")] == [b"body"]
                assert await store.recall("looked_at/default") == "2024-01-01T12:00:00.000000Z"
                assert (await store.append([event(1, JobStatus.FAILED)])).verdicts == [Verdict.CONTRADICTION]
                assert (await receipt_of(store, b"body", targets=["x"])).duplicate
        async with SQLiteStore(path) as store:
            await receipt_of(store, b"new", targets=["x"])
            await store.watch([JobRef("default", 2)], 60)
            assert (len(await store.due("default")), set(await store.watched("default"))) == (1, {2})
            assert (await store.append([event(2)])).verdicts == [Verdict.NEW]
            assert await store.head() == 3

    async def test_a_reader_of_an_older_file_says_what_to_do(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        of_version_1(path)
        before = path.read_bytes()
        with pytest.raises(StoreError, match=r"older airbyte-events \(schema 1.*start"):
            async with SQLiteStore(path, read_only=True):
                pass
        assert path.read_bytes() == before


class TestReader:
    async def test_sees_one_moment_of_a_file_in_use(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        async with SQLiteStore(path) as store:
            await store.append([event(1)])
            async with SQLiteStore(path, read_only=True) as reader:
                await store.append([event(2)])
                await store.prune(NOON + timedelta(hours=1), keep=1)
                assert (reader.epoch, await reader.head()) == (store.epoch, 1)
                assert sequences((await reader.read(0)).events) == [1]
                with pytest.raises(StoreError, match="readonly"):
                    await reader.append([event(3)])
                assert await reader.head() == 1
            assert await store.head() == 2

    async def test_of_no_file_makes_none(self, tmp_path: Path) -> None:
        path = tmp_path / "a ?%20#b.db"
        with pytest.raises(StoreError, match="there is no store"):
            async with SQLiteStore(path, read_only=True):
                pass
        assert [path async for path in anyio.Path(tmp_path).iterdir()] == []
        async with SQLiteStore(path):
            pass
        async with SQLiteStore(path, read_only=True) as reader:
            assert await reader.head() == 0


class TestPlace:
    """Files that are removed or replaced while they are in use."""

    @pytest.mark.parametrize("name", ["events.db", "events.db-wal"])
    async def test_i1_nothing_is_acknowledged_that_nobody_will_find(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "events.db"
        async with SQLiteStore(path) as store:
            kept = await received(store, b"kept")
            aside = tmp_path / "aside"
            (tmp_path / name).rename(aside)
            for _ in range(2):
                with pytest.raises(StoreError, match=f"{name} was removed or replaced"):
                    await received(store, b"lost")
            with pytest.raises(StoreError, match="removed or replaced"):
                await store.check()
            aside.rename(tmp_path / name)
            await store.check()
            assert [each.id for each in await store.notifications()] == [kept]

    async def test_i1_another_file_in_its_place_is_not_it(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        async with SQLiteStore(path) as store:
            path.with_name("copy").write_bytes(path.read_bytes())
            path.with_name("copy").replace(path)
            with pytest.raises(StoreError, match="removed or replaced"):
                await received(store, b"lost")

    @pytest.mark.parametrize("when", ["before", "during"])
    async def test_i1_whenever_it_goes(self, tmp_path: Path, when: str) -> None:
        path = tmp_path / "events.db"
        async with SQLiteFile(path) as file:

            def insert(connection: sqlite3.Connection) -> None:
                connection.execute("INSERT INTO meta VALUES ('x', 0)")
                path.rename(path.with_name("aside"))

            if when == "before":
                path.rename(path.with_name("aside"))
            with pytest.raises(StoreError, match="removed or replaced"):
                await file.transact(insert)


async def test_the_inbox_is_read_in_the_transaction_that_stores_a_notification(
    tmp_path: Path, anyio_backend_name: str
) -> None:
    """Who is woken by it reads it in every case: with it, or in a later transaction."""
    begun: list[str] = []

    def connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.set_trace_callback(lambda sql: begun.append(sql) if sql == "BEGIN" else None)
        return connection

    async with SQLiteStore(tmp_path / "events.db", connect=connect) as store:
        read: list[int] = []

        async def read_pending() -> None:
            with store.news("inbox/default") as news:
                reading.set()
                await news.wait()
                read.extend(each.id for each in await store.pending("default"))

        for number in range(3):
            reading = anyio.Event()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read_pending)
                await reading.wait()
                begun.clear()
                id_ = await received(store, b"%d" % number)
            assert read.pop() == id_
            if anyio_backend_name == "asyncio":  # trio runs tasks in any order
                assert len(begun) == 1


async def test_i5_a_restored_backup_is_another_log(tmp_path: Path) -> None:
    """As docs/stores.md says: back it up while it is used, restore it, remove the epoch."""
    path, backup = tmp_path / "events.db", tmp_path / "backup.db"
    async with SQLiteStore(path) as store:
        epoch = store.epoch
        await store.append([event(1)])
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as reader:
            reader.execute(f"VACUUM INTO '{backup}'")
        await store.append([event(2), event(3)])
    with contextlib.closing(sqlite3.connect(backup)) as restored, restored:
        restored.execute("DELETE FROM meta WHERE key = 'epoch'")
    async with SQLiteStore(backup) as store:
        await store.append([event(4), event(5), event(6)])
        assert store.epoch != epoch
        with pytest.raises(CursorExpired):
            await store.read(2, epoch=epoch)
        assert (await store.states([JobRef("default", 1)])).keys() == {JobRef("default", 1)}


async def test_a_migration_that_was_cut_off_is_not_taken_for_a_store(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with SQLiteStore(path):
        pass
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("INSERT INTO meta VALUES ('restoring', '1')")
    connection.close()
    with pytest.raises(StoreError, match=r"migration that was cut off: remove"):
        async with SQLiteStore(path):
            pass

"""``airbyte-events store …``, as it is called."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from typer.testing import CliRunner

from airbyte_events._utils.times import utcnow
from airbyte_events.cli.app import application, run
from airbyte_events.events import JobEvent, JobRef, JobStatus, Origin
from airbyte_events.store.records import Outcome
from airbyte_events.store.sqlite.store import SQLiteStore


def store(folder: Path, *args: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, whose ``events.db`` is the store that the settings name."""
    ours = {f"AIRBYTE_EVENTS_{name}": value for name, value in ({"STORE": "sqlite:///events.db"} | settings).items()}
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name in [name for name in os.environ if name.startswith("AIRBYTE_EVENTS_")]:
            patch.delenv(name)
        for name, value in ours.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["airbyte-events", "store", *args])
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        code = run()
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a store of 10 jobs that end, two events each, and 5 notifications of them; all of them two days old."""

    async def fill() -> None:
        at = utcnow() - timedelta(days=2)
        async with SQLiteStore(tmp_path / "events.db") as opened:
            for job_id in range(1, 11):
                for status in (JobStatus.RUNNING, JobStatus.SUCCEEDED):
                    event = JobEvent(ref=JobRef("default", job_id), status=status, observed_at=at, origin=Origin.POLL)
                    await opened.append([event])
            for number in range(5):
                await opened.receive(
                    instance="default",
                    body=b"%d" % number,
                    kind="success",
                    job_id=number + 1,
                    outcome=Outcome.CONFIRMED,
                    received_at=at,
                    targets=["slack"] if number == 0 else [],
                )
            await opened.remember("api_token", "digest")

    anyio.run(fill)
    return tmp_path


COUNTS = {"events": 20, "jobs": 10, "notifications": 5, "deliveries": 1, "values": 1}


class TestCheck:
    def test_a_store_that_is_whole(self, folder: Path) -> None:
        assert said(store(folder, "check", "--json")) == COUNTS | {"faults": []}
        plain = store(folder, "check", "--store", f"sqlite:///{folder}/events.db")
        assert plain.stdout == (
            "events         20\njobs           10\nnotifications  5\ndeliveries     1\nvalues         1\n"
            "no fault was found\n"
        )

    def test_names_the_faults_and_fails(self, folder: Path) -> None:
        connection = sqlite3.connect(folder / "events.db")
        with connection:
            connection.execute("DELETE FROM events WHERE sequence = 5")
            connection.execute("UPDATE notifications SET body = X'00' WHERE id = 2")
            connection.execute("UPDATE events SET data = '{' WHERE sequence = 7")
        connection.close()
        done = store(folder, "check")
        assert (done.returncode, done.stderr) == (1, "")
        assert "fault: events 5 to 5 are missing\n" in done.stdout
        assert "fault: notification 2 can't be read: its body is not the one that came" in done.stdout
        assert "fault: event 7 can't be read" in done.stdout
        assert "3 faults\n" in done.stdout
        done = store(folder, "check", "--json")
        assert done.returncode == 1
        assert len(json.loads(done.stdout)["faults"]) == 3

    def test_a_page_that_is_lost(self, folder: Path) -> None:
        content = bytearray((folder / "events.db").read_bytes())
        content[4096 * 2 :] = b"\xff" * (len(content) - 4096 * 2)
        (folder / "events.db").write_bytes(content)
        done = store(folder, "check", "--json")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr

    def test_while_a_listener_has_it(self, folder: Path) -> None:
        async def hold() -> None:
            async with SQLiteStore(folder / "events.db"):
                assert said(await anyio.to_thread.run_sync(store, folder, "check", "--json"))["faults"] == []

        anyio.run(hold)

    def test_changes_nothing(self, folder: Path) -> None:
        before = (folder / "events.db").read_bytes()
        store(folder, "check")
        store(folder, "export", "x")
        assert (folder / "events.db").read_bytes() == before


class TestCompact:
    def test_prunes_by_the_settings_and_gives_space_back(self, folder: Path) -> None:
        assert said(store(folder, "compact", "--json"))["removed_events"] == 0
        done = said(store(folder, "compact", "--json", RETAIN_EVENTS="4"))
        assert (done["removed_events"], done["removed_notifications"]) == (16, 0)
        done = said(store(folder, "compact", "--json", RETAIN_DAYS="1"))
        # What is still to be forwarded stays.
        assert (done["removed_events"], done["removed_notifications"]) == (4, 4)
        assert done["bytes_after"] <= done["bytes_before"]
        assert said(store(folder, "check", "--json"))["faults"] == []

    def test_settings_of_a_file(self, folder: Path) -> None:
        (folder / "x.toml").write_text("retain_events = 4\n")
        assert "removed events         16\n" in store(folder, "compact", "--config", "x.toml").stdout

    def test_not_while_a_listener_has_it(self, folder: Path) -> None:
        async def hold() -> None:
            async with SQLiteStore(folder / "events.db"):
                for args in (["compact"], ["import", "-"], ["migrate", "sqlite:///events.db", "sqlite:///new.db"]):
                    done = await anyio.to_thread.run_sync(store, folder, *args)
                    assert done.returncode == 1
                    assert f"is in use by process {os.getpid()}: stop it" in done.stderr

        anyio.run(hold)


class TestExportAndImport:
    def test_i5_a_store_goes_on_elsewhere(self, folder: Path) -> None:
        exported = said(store(folder, "export", "x.jsonl", "--json"))
        assert exported["head"] == 20
        assert {name: exported[name] for name in COUNTS} == COUNTS
        assert (folder / "x.jsonl").stat().st_mode & 0o777 == 0o600
        imported = said(store(folder, "import", "x.jsonl", "--json", "--store", "sqlite:///other/new.db"))
        assert imported == exported
        again = store(folder, "export", "-", STORE="sqlite:///other/new.db")
        assert again.stdout == (folder / "x.jsonl").read_text()
        assert "head           20\n" in again.stderr

    def test_by_a_pipe(self, folder: Path) -> None:
        exported = store(folder, "export", "-").stdout
        assert all(json.loads(line) for line in exported.splitlines())
        done = store(folder, "import", "-", "--store", "sqlite:///new.db", stdin=exported)
        assert (done.returncode, done.stderr) == (0, "")
        assert store(folder, "export", "-", "--store", "sqlite:///new.db").stdout == exported

    def test_i5_a_backup_is_another_log(self, folder: Path) -> None:
        exported = said(store(folder, "export", "x", "--json"))
        imported = said(store(folder, "import", "x", "--new-log", "--json", "--store", "sqlite:///new.db"))
        assert imported.pop("epoch") != exported.pop("epoch")
        assert imported == exported
        assert said(store(folder, "check", "--json", "--store", "sqlite:///new.db"))["faults"] == []

    def test_nothing_is_overwritten(self, folder: Path) -> None:
        (folder / "x").write_text("diary")
        done = store(folder, "export", "x")
        assert (done.returncode, done.stderr) == (1, "airbyte-events: x is there already: name a new file\n")
        assert (folder / "x").read_text() == "diary"
        exported = store(folder, "export", "-").stdout
        done = store(folder, "import", "-", stdin=exported)
        assert done.returncode == 1
        assert "the store is not empty" in done.stderr
        assert store(folder, "export", "-").stdout == exported

    @pytest.mark.parametrize(
        ("spoil", "fault"),
        [
            (lambda lines: lines[:-1], "the export is cut off after line 38"),
            (lambda lines: [*lines[:9], *lines[10:]], "the export has 37 records, and had 38 when written"),
            (lambda lines: [*lines, lines[3]], "line 40 of the export comes after its end"),
            (lambda lines: [*lines[:9], "{", *lines[10:]], "line 10 is no record"),
            (lambda lines: [], "it is empty"),
            (lambda lines: ["{}"], "line 1 is no record"),
            (lambda lines: lines[1:], "does not begin with the record of a log"),
            (lambda lines: [lines[0].replace('"format": 1', '"format": 2'), *lines[1:]], "a newer airbyte-events"),
        ],
    )
    def test_what_is_not_whole_is_not_imported(self, folder: Path, spoil: Any, fault: str) -> None:
        lines = store(folder, "export", "-").stdout.splitlines()
        done = store(
            folder,
            "import",
            "-",
            "--store",
            "sqlite:///new.db",
            stdin="\n".join(spoil(lines)) + "\n" * bool(spoil(lines)),
        )
        assert done.returncode == 1
        assert fault in done.stderr
        assert "Traceback" not in done.stderr
        whole = store(folder, "import", "-", "--store", "sqlite:///new.db", stdin="\n".join(lines))
        assert whole.returncode == 0

    def test_a_file_that_can_not_be_read_or_written(self, folder: Path) -> None:
        done = store(folder, "import", "nowhere", "--store", "sqlite:///new.db")
        assert (done.returncode, done.stderr) == (1, "airbyte-events: can't read nowhere: No such file or directory\n")
        assert not (folder / "new.db").exists()
        done = store(folder, "export", "no/where")
        assert (done.returncode, done.stderr) == (
            1,
            "airbyte-events: can't write no/where: No such file or directory\n",
        )


class TestMigrate:
    def test_i5_moves_a_store(self, folder: Path) -> None:
        done = said(store(folder, "migrate", "sqlite:///events.db", "sqlite:///new.db", "--json"))
        assert {name: done[name] for name in COUNTS} == COUNTS
        exports = [store(folder, "export", "-", STORE=f"sqlite:///{name}.db").stdout for name in ("events", "new")]
        assert exports[0] == exports[1] != ""

    def test_the_new_one_can_be_that_of_the_settings(self, folder: Path) -> None:
        done = said(store(folder, "migrate", "sqlite:///events.db", "--json", STORE="sqlite:///new.db"))
        assert done["head"] == 20
        assert (folder / "new.db").exists()

    def test_i5_to_postgresql_and_back(self, folder: Path, postgres_url: str) -> None:
        url = f"{postgres_url}?schema=moved_{secrets.token_hex(8)}"
        steps = [
            store(folder, "migrate", "sqlite:///events.db", STORE=url),
            store(folder, "check", STORE=url),
            store(folder, "compact", STORE=url),
            store(folder, "migrate", url, "sqlite:///back.db"),
        ]
        password = urlsplit(url).password
        assert password
        for done in steps:
            assert (done.returncode, done.stderr) == (0, "")
            assert password not in done.stdout
        exports = [store(folder, "export", "-", STORE=f"sqlite:///{name}.db").stdout for name in ("events", "back")]
        assert exports[0] == exports[1] != ""

    @pytest.mark.parametrize(
        ("args", "code", "fault"),
        [
            (["sqlite:///nowhere.db", "sqlite:///new.db"], 1, "there is no store nowhere.db"),
            (["memory:", "sqlite:///new.db"], 2, "a store in memory is gone with its process"),
            (["events.db", "sqlite:///new.db"], 2, "FROM: no such store"),
            (["sqlite:///events.db", "new.db"], 2, "TO: no such store"),
            (["sqlite:///events.db", "sqlite:///events.db"], 1, "is in use by process"),
        ],
    )
    def test_wrong_places(self, folder: Path, args: list[str], code: int, fault: str) -> None:
        done = store(folder, "migrate", *args)
        assert done.returncode == code
        assert fault in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (folder / "new.db").exists()


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for args in (["check"], ["compact"], ["export", "x"]):
        done = store(tmp_path, *args)
        assert (done.returncode, done.stderr) == (1, "airbyte-events: there is no store events.db\n")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    done = store(tmp_path, "check", "--store", "x")
    assert done.returncode == 2
    assert done.stderr.startswith("airbyte-events: --store: no such store")
    done = store(tmp_path, "compact", RETAIN_DAYS="always")
    assert done.returncode == 2
    assert "AIRBYTE_EVENTS_RETAIN_DAYS: not a number of days" in done.stderr


@pytest.mark.parametrize("rich", [True, False])
def test_help_names_every_command(rich: bool) -> None:
    shown = CliRunner().invoke(application(rich=rich), ["store", "--help"]).output
    for name in ("check", "compact", "export", "import", "migrate"):
        assert name in shown

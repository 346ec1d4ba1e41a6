"""``airbyte-events store …``, as it is called."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
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
from airbyte_events.store.records import Arrival, Outcome
from airbyte_events.store.sqlite.store import SQLiteStore


def store(folder: Path, *args: str, **settings: str) -> subprocess.CompletedProcess[str]:
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
                arrival = Arrival(
                    instance="default",
                    body=b"%d" % number,
                    kind="success",
                    job_id=number + 1,
                    outcome=Outcome.CONFIRMED,
                    received_at=at,
                    targets=["slack"] if number == 0 else [],
                )
                await opened.receive(arrival)
            await opened.remember("api_token", "digest")

    anyio.run(fill)
    return tmp_path


COUNTS = {"events": 20, "jobs": 10, "notifications": 5, "deliveries": 1, "values": 1}


def copied(path: Path) -> dict[str, Any]:
    """All that readers of a store find in it."""

    async def read() -> dict[str, Any]:
        async with SQLiteStore(path) as opened:
            return {
                "epoch": opened.epoch,
                "events": [(each.cursor, each.data()) for each in (await opened.read(0)).events],
                "jobs": [(each.cursor, each.data()) for each in await opened.jobs()],
                "notifications": await opened.notifications(),
                "deliveries": await opened.deliveries(),
                "token": await opened.recall("api_token"),
            }

    return anyio.run(read)


class TestMigrate:
    def test_i5_moves_a_store(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        done = said(store(folder, "migrate", "sqlite:///events.db", "sqlite:///new.db", "--json"))
        assert {name: done[name] for name in COUNTS} == COUNTS
        assert copied(folder / "new.db") == copied(folder / "events.db")
        assert "has lost events" not in caplog.text

    def test_skips_and_names_damaged_rows(self, folder: Path) -> None:
        connection = sqlite3.connect(folder / "events.db")
        with connection:
            connection.execute("UPDATE events SET data = '{' WHERE sequence = 7")
            connection.execute("UPDATE jobs SET data = '{' WHERE job_id = 2")
            connection.execute("UPDATE notifications SET outcome = 'eaten' WHERE id = 2")
        connection.close()
        done = store(folder, "migrate", "sqlite:///events.db", "sqlite:///new.db", "--json")
        moved = json.loads(done.stdout)
        # The newest event of job 2 tells its state.
        assert (moved["events"], len(copied(folder / "new.db")["jobs"])) == (19, 10)
        assert (moved["notifications"], moved["unreadable"]) == (4, 3)
        assert "Traceback" not in done.stderr

    def test_a_page_that_is_lost(self, folder: Path) -> None:
        content = bytearray((folder / "events.db").read_bytes())
        content[4096 * 2 :] = b"\xff" * (len(content) - 4096 * 2)
        (folder / "events.db").write_bytes(content)
        done = store(folder, "migrate", "sqlite:///events.db", "sqlite:///new.db")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr

    def test_a_store_that_is_not_empty_is_left_alone(self, folder: Path) -> None:
        shutil.copy(folder / "events.db", folder / "other.db")
        done = store(folder, "migrate", "sqlite:///events.db", "sqlite:///other.db")
        assert (done.returncode, "the store is not empty" in done.stderr) == (1, True)
        assert copied(folder / "other.db") == copied(folder / "events.db")

    def test_the_new_one_can_be_that_of_the_settings(self, folder: Path) -> None:
        done = said(store(folder, "migrate", "sqlite:///events.db", "--json", STORE="sqlite:///new.db"))
        assert done["head"] == 20
        assert (folder / "new.db").exists()

    def test_i5_to_postgresql_and_back(self, folder: Path, postgres_url: str) -> None:
        url = f"{postgres_url}?schema=moved_{secrets.token_hex(8)}"
        steps = [
            store(folder, "migrate", "sqlite:///events.db", STORE=url),
            store(folder, "migrate", url, "sqlite:///back.db"),
        ]
        password = urlsplit(url).password
        assert password
        for done in steps:
            assert (done.returncode, done.stderr) == (0, "")
            assert password not in done.stdout
        assert copied(folder / "back.db") == copied(folder / "events.db")

    @pytest.mark.parametrize(
        ("args", "code", "fault"),
        [
            (["sqlite:///nowhere.db", "sqlite:///new.db"], 1, "there is no store nowhere.db"),
            (["memory:", "sqlite:///new.db"], 2, "memory: can't be moved"),
            (["events.db", "sqlite:///new.db"], 2, "FROM: no such store"),
            (["sqlite:///events.db", "new.db"], 2, "TO: no such store"),
            (["sqlite:///events.db", "sqlite:///events.db"], 2, "TO: events.db is FROM itself"),
            (["sqlite:///events.db"], 2, "TO: events.db is FROM itself"),
        ],
    )
    def test_wrong_places(self, folder: Path, args: list[str], code: int, fault: str) -> None:
        done = store(folder, "migrate", *args)
        assert done.returncode == code
        assert fault in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (folder / "new.db").exists()


@pytest.mark.parametrize("rich", [True, False])
def test_help_names_the_command(rich: bool) -> None:
    assert "migrate" in CliRunner().invoke(application(rich=rich), ["store", "--help"]).output

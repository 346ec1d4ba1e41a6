"""The command line as a process that is told of a simulated Airbyte and a listener."""

from __future__ import annotations

import os
import pty
import re
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.abc import Process

from airbyte_events.listener.settings import Settings
from airbyte_events.listener.settings.connections import ConnectionSettings
from airbyte_events.simulator import Simulator
from airbyte_events.simulator.models import Connection, Job
from airbyte_events.store.registry import store_location
from support.command import command
from support.listener import instance_of, serve_listener
from support.waiting import until

CLIENT_SECRET = "canary-that-is-a-client-secret"
API_TOKEN = "canary-that-is-an-api-token-01"
WEBHOOK_TOKEN = "canary-that-is-a-webhook-token"


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class Started:
    """A command that runs."""

    process: Process
    err: Path
    _rest: str = ""

    async def line(self) -> str:
        """The next line of its output."""
        assert self.process.stdout is not None
        with anyio.fail_after(30):
            while "\n" not in self._rest:
                self._rest += (await self.process.stdout.receive()).decode()
        line, _, self._rest = self._rest.partition("\n")
        return line

    async def said(self, words: str) -> None:
        """Returns when it has said this on standard error; what is written there can't tell."""
        await until(lambda: words in self.err.read_text())

    async def interrupted(self) -> int:
        """Press Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return await self.ended()

    async def ended(self) -> int:
        with anyio.fail_after(30):
            return await self.process.wait()


@dataclass(kw_only=True)
class CommandStage:
    """:param settings: of the commands, without their prefix."""

    sim: Simulator
    connection: Connection
    folder: Path
    url: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    running: AsyncExitStack = field(default_factory=AsyncExitStack)
    connections: dict[str, ConnectionSettings] = field(default_factory=dict)

    async def listen(self) -> None:
        """Begin to listen, where it listened before and with the store of before."""
        port = int(self.url.rpartition(":")[2] or 0)
        instance = instance_of(self.sim.url, secret=CLIENT_SECRET, connections=self.connections)
        settings = Settings(
            instances={"default": instance},
            store=store_location(f"sqlite:///{self.folder / 'events.db'}"),
            api_tokens=[API_TOKEN],
            webhook_tokens=[WEBHOOK_TOKEN],
        )
        self.url = (await self.running.enter_async_context(serve_listener(settings, port=port))).url
        self.settings["LISTENER_URL"] = self.url

    async def leave(self) -> None:
        """Listen no more."""
        await self.running.aclose()

    def announce(self, *, enabled: bool = True) -> None:
        """Have Airbyte send its notifications to the listener."""
        self.sim.workspace.set_webhook(self.receiver if enabled else None)

    @property
    def receiver(self) -> str:
        return f"{self.url}/webhooks/default/{WEBHOOK_TOKEN}"

    def start(self, connection: Connection | None = None) -> Job:
        return self.sim.world.start_job(connection or self.connection)

    def end(self, job: Job, status: str = "succeeded") -> Job:
        return self.sim.world.end_job(job, status)

    async def settled(self, job: Job) -> None:
        """Returns when the listener has told of the job's end, which its webhook brought."""
        with anyio.fail_after(30):
            while f'"{job.status}"' not in (await self.run("jobs", "--ended", "--job", str(job.id), "--json")).out:
                pass

    async def run(self, *args: str, stdin: Any = DEVNULL, **settings: str | None) -> Done:
        """Run a command to its end."""
        with anyio.fail_after(60):
            done = await anyio.run_process(
                [*command(), *args], env=self.environ(settings), stdin=stdin, check=False, stderr=PIPE
            )
        told = Done(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())
        check_quiet(told.out + told.err)
        return told

    @asynccontextmanager
    async def started(self, *args: str, stdout: int = PIPE, **settings: str | None) -> AsyncIterator[Started]:
        """A command that runs until it is ended."""
        err = self.folder / f"err-{len(list(self.folder.iterdir()))}"
        with err.open("w") as stderr:
            process = await anyio.open_process(
                [*command(), *args], env=self.environ(settings), stdin=DEVNULL, stdout=stdout, stderr=stderr
            )
        try:
            yield Started(process, err)
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose()
        check_quiet(err.read_text())

    def _end_once(self, pattern: bytes, seen: bytearray) -> None:
        if pattern and re.search(pattern, seen) and not (job := self.connection.jobs[-1]).terminal:
            anyio.from_thread.run_sync(self.end, job)

    async def at_terminal(
        self,
        *args: str,
        typed: bytes = b"",
        answers: Sequence[tuple[bytes, bytes]] = (),
        interrupt_at: bytes = b"",
        ends_at: bytes = b"",
        **settings: str | None,
    ) -> tuple[int, str]:
        """Run a command at a terminal of its own, of 200 columns.

        :param answers: what it asks, and what is typed then.
        :param interrupt_at: what it shows when Ctrl-C is pressed.
        :param ends_at: a pattern of what it shows when the connection's last job succeeds.
        :return: the exit code, and what was to be seen, escape sequences and all.
        """
        ours, its = pty.openpty()
        env = self.environ({"TERM": "xterm-256color", "COLUMNS": "200", **settings})
        try:
            # In a session of its own, so that /dev/tty is not the terminal of the tests.
            process = await anyio.open_process(
                [*command(), *args], env=env, stdin=its, stdout=its, stderr=its, start_new_session=True
            )
        finally:
            os.close(its)
        if typed:
            os.write(ours, typed)
        seen = bytearray()
        left = list(answers)
        asked = 0

        def answer() -> None:
            nonlocal asked
            while left and (at := seen.find(left[0][0], asked)) >= 0:
                asked = at + len(left[0][0])
                os.write(ours, left.pop(0)[1] + b"\n")

        def read() -> None:
            # The end of the last one who has it open is an error of Linux's own.
            while True:
                try:
                    if not (chunk := os.read(ours, 4096)):
                        return
                except OSError:
                    return
                shown_before = interrupt_at in seen
                seen.extend(chunk)
                answer()
                if interrupt_at in seen and not shown_before:
                    process.send_signal(signal.SIGINT)
                self._end_once(ends_at, seen)

        try:
            with anyio.move_on_after(60):
                # A command that does not end is killed below, and then the thread ends.
                await anyio.to_thread.run_sync(read, abandon_on_cancel=True)
                await process.wait()
            assert process.returncode is not None, f"{args} does not end, and shows {bytes(seen[-1000:])!r}"
        finally:
            if process.returncode is None:
                process.kill()
            os.close(ours)
        check_quiet(seen.decode())
        return process.returncode, seen.decode()

    def environ(self, settings: Mapping[str, str | None]) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRBYTE_EVENTS_", "AIRFLOW")) and name not in {"NO_COLOR", "FORCE_COLOR"}
        }
        outside = {
            "TERM",
            "COLUMNS",
            "NO_COLOR",
            "FORCE_COLOR",
            "XDG_DATA_HOME",
            "AIRFLOW_CONN_AIRBYTE_DEFAULT",
            "AIRFLOW_HOME",
        }
        env = kept | {"XDG_DATA_HOME": str(self.folder / "share")}
        for name, value in {**self.settings, **settings}.items():
            if value is not None:
                env[name if name in outside else f"AIRBYTE_EVENTS_{name}"] = value
        return env


def check_quiet(text: str) -> None:
    """I7, whatever the test is about."""
    assert "Traceback" not in text, text
    for secret in (CLIENT_SECRET, API_TOKEN, WEBHOOK_TOKEN):
        assert secret not in text

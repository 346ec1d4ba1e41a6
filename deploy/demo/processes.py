"""A set of processes that ends with the block that owns it, however that block ends.

Each command runs under a keeper (:mod:`keeper`), whose standard input is a pipe that only this process holds. Closing
it is the one way to stop a command, and a killed owner closes it too: what is left behind by ``kill -9`` is ended by
the same code as what is stopped in good order.
"""

from __future__ import annotations

import contextlib
import errno
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import keeper
import psutil  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Self

T = TypeVar("T")

_KEEPER = str(Path(__file__).with_name("keeper.py"))
_TICK = 0.1
_MARGIN = 10.0  # seconds that a keeper may take over its grace


class StackError(Exception):
    """A process, or what was waited for, is not as it should be. The message ends with the last lines of the log."""


class Process:
    """A running command. :class:`Processes` makes and ends it.

    :param name: what messages call it.
    :param log: the file that its output is appended to.
    :param grace: seconds between SIGTERM and SIGKILL when it is stopped.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, grace: float
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.pid = 0
        self._env, self._cwd, self._grace = dict(env), cwd, grace
        self._start()

    def _start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", _KEEPER, str(self._grace), *self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        assert self._keeper.stdout is not None
        try:
            with self._keeper.stdout as line:
                self.pid = int(line.readline() or 0)
            if not self.pid:
                raise StackError(f"{self.name} did not start{self.tail()}")
        except BaseException:
            self.stop()
            raise

    @property
    def status(self) -> int | None:
        """The exit status, or 128 plus the number of the signal that ended it; None while it runs."""
        return self._keeper.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the command alone. What it leaves behind if it ends of it is ended too."""
        assert self._keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._keeper.stdin.write(f"{number.name}\n".encode())
            self._keeper.stdin.flush()

    def kill(self) -> None:
        """``kill -9`` the command, and wait until it and all it started are gone."""
        self.send_signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """End the command and all it started: SIGTERM, and after the grace SIGKILL. Nothing if it has ended."""
        self.release()
        self._wait()

    def restart(self, env: Mapping[str, str] | None = None) -> None:
        """The same command and log file again; it is stopped first.

        :param env: another environment.
        """
        self.stop()
        self._env = dict(self._env if env is None else env)
        self._start()

    def release(self) -> None:
        """Begin to end the command, without waiting for it."""
        if self._keeper.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._keeper.stdin.close()

    def _wait(self) -> None:
        try:
            self._keeper.wait(self._grace + _MARGIN)
        except subprocess.TimeoutExpired as exc:
            raise StackError(f"{self.name} can't be ended: process {self.pid} is still there") from exc
        except BaseException:  # Ctrl-C: no more patience
            self._keeper.terminate()
            self._keeper.wait(_MARGIN)
            raise
        finally:
            self.release()
        if self._keeper.returncode < 0 and self.pid:  # the keeper itself was killed
            for process in keeper.members(self.pid):
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def tail(self, lines: int = 20) -> str:
        """The end of the log file, as the end of an error's message."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:] if self.log.exists() else []
        return f"; the end of {self.log}:\n" + "\n".join(f"    {line}" for line in text) if text else ""

    def __repr__(self) -> str:
        return f"<{self.name}, pid {self.pid}, {'running' if self.status is None else f'ended: {self.status}'}>"


class Processes:
    """The processes of one ``with`` block.

    :param logs: the folder of the log files, ``<name>.log``.
    :param cwd: the folder that the commands run in.
    """

    def __init__(self, logs: Path, cwd: Path) -> None:
        self._logs, self._cwd = logs, cwd
        self._running: dict[str, Process] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __getitem__(self, name: str) -> Process:
        return self._running[name]

    def __contains__(self, name: str) -> bool:
        return name in self._running

    def start(self, name: str, command: Sequence[str], *, env: Mapping[str, str], grace: float = 10.0) -> Process:
        """:raises StackError: if the command can't be started."""
        if name in self._running:
            raise ValueError(f"{name} is already there")
        self._running[name] = Process(
            name, command, env=env, cwd=self._cwd, log=self._logs / f"{name}.log", grace=grace
        )
        return self._running[name]

    def stop(self, *names: str) -> None:
        """End the named processes, or all, at the same time. Returns when nothing of them is left."""
        ending = [self._running.pop(name) for name in names or list(self._running)]
        for process in ending:
            process.release()
        with contextlib.ExitStack() as stack:  # one that raises does not keep the next from being waited for
            for process in ending:
                stack.callback(process.stop)

    def check(self, *names: str) -> None:
        """:raises StackError: if one of the named processes, or of all, has ended."""
        for process in (self._running[name] for name in names or self._running):
            if process.status is not None:
                raise StackError(f"{process.name} ended with status {process.status}{process.tail()}")

    def watch(self, seconds: float) -> None:
        """:raises StackError: if one of the processes has ended, or does so within these seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            time.sleep(_TICK)

    def wait_until(self, probe: Callable[[], T | None], what: str, *, timeout: float, blame: Sequence[str] = ()) -> T:
        """Ask until the answer is neither None nor False.

        :param what: completes "waited … seconds for".
        :param timeout: seconds.
        :param blame: the processes without which there is no point in waiting; their logs end the error's message.
        :raises StackError: after the time-out, or as soon as one of those processes has ended.
        """

        def checked() -> T | None:
            answer = probe()
            if not answer and blame:
                self.check(*blame)
            return answer

        try:
            return wait_until(checked, what, timeout=timeout)
        except TimeoutError as exc:
            tails = "".join(self._running[name].tail(8) for name in blame)
            raise StackError(f"{exc}{tails}") from exc


def wait_until(probe: Callable[[], T | None], what: str, *, timeout: float) -> T:
    """Ask until the answer is neither None nor False.

    :param what: completes "waited … seconds for".
    :param timeout: seconds.
    :raises TimeoutError: then.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = probe()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout:g} seconds for {what}, in vain")
        time.sleep(_TICK)


def free_ports(count: int) -> list[int]:
    """TCP ports that nothing listens on, on any interface.

    They lie below the range that systems take outgoing connections' ports from, so that no such connection takes one
    before the process it is meant for does.
    """
    ports: set[int] = set()
    for port in random.sample(range(20000, 32000), 1000):
        with socket.socket() as probe:
            # Without it a port whose last connections are in TIME_WAIT would look taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
                probe.listen(1)
            except OSError as exc:
                if exc.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
            else:
                ports.add(port)
        if len(ports) == count:
            return list(ports)
    raise StackError(f"no {count} free TCP ports from 20000 to 31999")


def scrubbed_environment(environ: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    """The environment without the variables that begin with one of the prefixes, and without proxies: all that is
    started here talks to this machine alone.
    """
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(prefixes) and not name.lower().endswith("_proxy")
    }


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP raise :class:`SystemExit`, so that the blocks inside come to their end."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Runs the walk of docs/walkthrough.md from its page: each block of shell commands in turn, in one shell, and what the
page says that they show is looked for in what they do show. Loopback only; nothing is left behind.

    make walkthrough
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "walkthrough.md"
PORTS = ("8000", "8484", "8090")
"""Of the page, each of which becomes a free one."""
LIMIT = 300.0
"""Seconds for all of it."""

_BLOCK = re.compile(
    r"^(?P<heading>#+ .*)$"
    r"|(?:^<!-- status: (?P<status>\d+) -->\n)?^```sh\n(?P<commands>(?s:.*?))^```$"
    r"|^```text\n(?P<shows>(?s:.*?))^```$",
    re.MULTILINE,
)


@dataclass
class Step:
    """A block of commands.

    :param heading: what it stands under.
    :param status: that its last command shall end with.
    :param shows: lines that shall be among its output in this order; ``…`` is for anything.
    """

    heading: str
    commands: str
    status: int
    shows: str = ""


def steps(page: str) -> list[Step]:
    """What a page has its reader do."""
    found: list[Step] = []
    heading = ""
    for block in _BLOCK.finditer(page):
        if block["heading"]:
            heading = block["heading"].lstrip("# ")
        elif block["commands"]:
            found.append(Step(heading, block["commands"], int(block["status"] or 0)))
        else:
            found[-1].shows += block["shows"]
    return found


def missing(shows: str, output: str) -> str | None:
    """The first line that was to be shown and is not there, behind the one before it."""
    at = 0
    for line in shows.splitlines():
        pattern = ".*".join(map(re.escape, line.split("…")))
        match = re.compile(pattern).search(output, at)
        if match is None:
            return line
        at = match.end()
    return None


class Shell:
    """One shell, which is given commands and tells what they show."""

    def __init__(self, folder: Path) -> None:
        away = ("AIRBYTE_EVENTS_", "AIRFLOW_", "_AIRFLOW_", "XDG_", "PIP_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(away)}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "NO_COLOR": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self._end = secrets.token_hex(8)
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, commands: str) -> tuple[int | None, str]:
        """:return: the last command's status, None if the shell has ended; and what was shown."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        # The commands are of a brace group, which is read whole: none of them can take the rest for its own input.
        self._shell.stdin.write(f'{{\n{commands}\n}} < /dev/null\necho "{self._end} $?"\n')
        self._shell.stdin.flush()
        shown: list[str] = []
        for line in self._shell.stdout:
            before, found, status = line.partition(self._end)
            shown.append(before)
            if found:
                return int(status), "".join(shown)
        return None, "".join(shown)

    def end(self) -> None:
        """End it, and all that was started in it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._shell.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._shell.wait(3)
        for pipe in (self._shell.stdin, self._shell.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


def walk(page: str, folder: Path, limit: float = LIMIT) -> int:
    """:return: the exit status: 0 if the page is right."""
    if not steps(page):
        print("the page has no steps", file=sys.stderr)
        return 1
    for port, free in zip(PORTS, _free_ports(len(PORTS)), strict=True):
        page = page.replace(f":{port}", f":{free}").replace(f"PORT={port}", f"PORT={free}")
        page = page.replace(f"--port {port}", f"--port {free}")
    began, late = time.monotonic(), threading.Event()
    with ExitStack() as stack:
        shell = stack.enter_context(_shell(folder))
        timer = threading.Timer(limit, _stop, (shell, late))
        timer.start()
        # It shall not outlive the walk, whatever ends that.
        stack.callback(timer.cancel)
        for step in steps(page):
            status, output = shell.run(step.commands)
            print(f"[{time.monotonic() - began:5.1f} s] {step.heading}", flush=True)
            lacking = missing(step.shows, output)
            if status == step.status and lacking is None:
                continue
            if late.is_set():
                fault = f"not done after {limit:.0f} s"
            elif status != step.status:
                fault = f"ended with {status}, not with {step.status}"
            else:
                fault = f"does not show: {lacking}"
            print(f"{step.commands}\n{output[-6000:]}\n{fault}", file=sys.stderr)
            return 1
    print(f"the page is right, after {time.monotonic() - began:.0f} s")
    return 0


def _stop(shell: Shell, late: threading.Event) -> None:
    late.set()
    shell.end()


@contextmanager
def _shell(folder: Path) -> Iterator[Shell]:
    shell = Shell(folder)
    try:
        yield shell
    finally:
        shell.end()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in taken]


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="walkthrough-"))
    try:
        return walk(PAGE.read_text(encoding="utf-8"), folder)
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

"""The command line as a process that does not import it anew: ``[*command(), "jobs", "--json"]`` instead of
``[*fresh_command(), …]``.

Starting Python and importing what a command needs takes 0.5 to 0.9 s of CPU, some three hundred times. So one process
per test process imports it once and forks for every command. The fork has the environment, folder and standard
streams of its caller (a terminal, if they are one), and gets the signals; its exit code or signal is the caller's. What
depends on the import itself, or needs the process' own id (limits), starts a fresh one. ``SIGTSTP`` suspends it.
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent


def fresh_command() -> list[str]:
    """Return what a new Python runs the command line with."""
    return [sys.executable, "-c", "from airbyte_events.cli.main import main; main()"]


@functools.cache
def command() -> tuple[str, ...]:
    """Return what the forked command line is run with, here for as long as this process runs."""
    if not hasattr(os, "pidfd_open"):  # macOS
        return tuple(fresh_command())
    folder = tempfile.TemporaryDirectory(prefix="command-")
    path = f"{folder.name}/socket"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AIRBYTE_EVENTS_", "COV"))}
    server = subprocess.Popen(
        [sys.executable, str(_HERE / "server.py"), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    )
    atexit.register(folder.cleanup)
    atexit.register(server.communicate)  # the end of its input is its end
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return (sys.executable, "-I", "-S", str(_HERE / "client.py"), path)

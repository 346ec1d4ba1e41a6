"""Keeps one command: runs it in a session of its own, and ends all that came of it when told, or when nobody is left
to tell::

    python keeper.py GRACE COMMAND [ARGUMENT ...]

Standard input is the line to whoever started the keeper. A line with a signal's name sends that signal to the command;
``SIGKILL`` is for everything that the command started, too. The end of the input, which comes also when the starter was
killed, ends all of it: SIGTERM to the command; to what it leaves behind, or has not ended itself after half of GRACE;
and SIGKILL to what is still there after GRACE seconds. When the command ends by itself, what it leaves behind is ended
in the same way. SIGTERM to the keeper ends all without grace, at any time.

Standard output gets one line, the command's process id. The command's output, and the keeper's, go to standard error.
The keeper's exit status is the command's, or 128 plus the number of the signal that ended it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Any

import psutil  # type: ignore[import-untyped]

_PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h
_TICK = 0.05


def members(session: int, *roots: psutil.Process) -> set[psutil.Process]:
    """The live processes of a session, and the live descendants of the roots, which may have left it."""
    found: set[psutil.Process] = set()
    for root in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.update(root.children(recursive=True))
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            if os.getsid(pid) == session:
                found.add(psutil.Process(pid))
    return {process for process in found if alive(process)}


def alive(process: psutil.Process) -> bool:
    """Whether it runs: a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


class Keeper:
    """:param grace: seconds between SIGTERM and SIGKILL.

    The command is reaped last of all: until then its process id, which names the session, can't be given away.
    """

    def __init__(self, command: list[str], grace: float) -> None:
        self._grace = grace
        self._kill = False
        self._wakeups, wakeup = os.pipe()
        os.set_blocking(self._wakeups, False)
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        adopt_orphans()
        self._self = psutil.Process()
        self._command = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
        self._leader = psutil.Process(self._command.pid)

    @property
    def pid(self) -> int:
        return self._command.pid

    def _on_term(self, *_: Any) -> None:
        self._kill = True

    def run(self) -> int:
        """Wait until it is time to end, then end; return the command's status."""
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(self._wakeups, selectors.EVENT_READ)
            while alive(self._leader) and not self._kill:
                for key, _ in selector.select():
                    if key.fd == self._wakeups:
                        self._drain_wakeups()
                        self._reap_adopted()
                    elif not self._obey(os.read(0, 4096)):
                        self._end()
                        return self._command.wait()
        self._end()
        return self._command.wait()

    def _obey(self, lines: bytes) -> bool:
        for name in lines.decode("ascii").split():
            if name == "SIGKILL":
                self._kill = True
            else:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._leader.send_signal(signal.Signals[name])
        return bool(lines)

    def _end(self) -> None:
        """The command is asked first and may end its children itself: some take a SIGTERM of their own amiss."""
        began = time.monotonic()
        asked: set[psutil.Process] = set()
        seen: set[psutil.Process] = set()
        # What was in sight once stays so, even where its parent's end takes it out of sight.
        while left := members(self._command.pid, self._self) | {process for process in seen if alive(process)}:
            waited = time.monotonic() - began
            kill = self._kill or waited >= self._grace
            alone = self._leader in left and waited < self._grace / 2
            for process in left if kill else ({self._leader} if alone else left) - asked:
                asked.add(process)
                with contextlib.suppress(psutil.Error):
                    if kill:
                        process.kill()
                    else:
                        process.terminate()
                        process.send_signal(signal.SIGCONT)
            seen |= left
            time.sleep(_TICK)
            self._reap_adopted()

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wakeups, 4096):
                pass

    def _reap_adopted(self) -> None:
        for child in self._self.children():
            if child.pid != self._command.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(child.pid, os.WNOHANG)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent dies, where the system has that: then none gets out of sight."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> int:
    grace, command = float(sys.argv[1]), sys.argv[2:]
    try:
        keeper = Keeper(command, grace)
    except OSError as exc:
        print(f"can't start {command[0]}: {exc}", file=sys.stderr)
        return 127
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{keeper.pid}\n".encode())
    status = keeper.run()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())

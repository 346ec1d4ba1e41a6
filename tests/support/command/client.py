"""``client.py SOCKET ARGUMENT…``: hands its arguments, environment, folder and standard streams to the server, passes
signals on, and ends as the fork does."""

from __future__ import annotations

import os
import signal
import socket
import sys


def main(path: str, *arguments: str) -> None:
    child = 0
    early: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        if child:
            # Nobody can catch SIGSTOP. SIGTSTP stands for it.
            os.kill(child, signal.SIGSTOP if number == signal.SIGTSTP else number)
        else:
            early.append(number)

    for name in ("INT", "TERM", "HUP", "USR1", "USR2", "WINCH", "TSTP", "CONT"):
        signal.signal(signal.Signals[f"SIG{name}"], pass_on)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    server.connect(path)
    folder = os.getcwd()  # noqa: PTH109 (importing pathlib takes longer than all else here)
    strings = [folder, str(len(arguments)), *arguments, *(f"{name}={value}" for name, value in os.environ.items())]
    socket.send_fds(server, [os.fsencode("\0".join(strings))], [0, 1, 2])
    for fd in (0, 1, 2):
        os.close(fd)
    child = int(server.recv(64))
    for number in early:
        os.kill(child, number)
    status = int(server.recv(64) or b"-9")
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    os._exit(status)


main(*sys.argv[1:])

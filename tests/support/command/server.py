"""``server.py SOCKET``: imports the command line, says ``ready``, and forks for every client, until its input ends."""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress

import airbyte_events
from airbyte_events.cli.main import main

for _module in pkgutil.walk_packages(airbyte_events.__path__, "airbyte_events."):
    with suppress(ModuleNotFoundError):  # the driver of PostgreSQL need not be there
        importlib.import_module(_module.name)
# It reads the environment when it is imported.
sys.modules.pop("typer.rich_utils", None)


def serve(path: str) -> list[socket.socket]:
    """Fork for every client. Return in the fork, which is then the command; what it returns must stay open."""
    selector = selectors.DefaultSelector()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(128)
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    children: dict[int, tuple[int, socket.socket]] = {}
    gc.freeze()
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                client, _ = listener.accept()
                message, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
                pid = os.fork()
                if pid == 0:
                    become(message, streams)
                    return [listener, client, *(each for _, each in children.values())]
                for each in streams:
                    os.close(each)
                pidfd = os.pidfd_open(pid)
                children[pidfd] = (pid, client)
                selector.register(pidfd, selectors.EVENT_READ)
                selector.register(client, selectors.EVENT_READ, pid)
                with suppress(OSError):
                    client.send(str(pid).encode())
            elif key.fileobj is sys.stdin:
                for pid, _ in children.values():
                    os.kill(pid, signal.SIGKILL)
                sys.exit()
            elif isinstance(key.fileobj, socket.socket):
                # Its client was killed.
                selector.unregister(key.fileobj)
                os.kill(key.data, signal.SIGKILL)
            else:
                assert isinstance(key.fileobj, int)
                pid, client = children.pop(key.fileobj)
                selector.unregister(key.fileobj)
                os.close(key.fileobj)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(KeyError):
                    selector.unregister(client)
                with suppress(OSError):
                    client.send(str(code).encode())
                client.close()


def become(message: bytes, streams: list[int]) -> None:
    """Be the process that the client would have been."""
    folder, count, *rest = message.split(b"\0")
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 4096)
    os.chdir(folder)
    sys.argv = ["-c", *map(os.fsdecode, rest[: int(count)])]
    os.environ.clear()
    for item in rest[int(count) :]:
        name, _, value = item.partition(b"=")
        os.environb[name] = value
    time.tzset()
    sys.stdin = open(0)  # noqa: SIM115
    sys.stdout = open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115


if __name__ == "__main__":
    held = serve(sys.argv[1])
    main()

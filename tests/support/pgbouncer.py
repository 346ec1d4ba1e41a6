"""pgbouncer in transaction mode before a PostgreSQL server of tests: Debian's package has it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from postgres_server import PASSWORD, PostgresServer
from support.servers import free_port

_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 20
max_client_conn = 500
"""


@contextlib.contextmanager
def pgbouncer(server: PostgresServer) -> Iterator[str]:
    """One that runs meanwhile.

    :return: the URL of the server's first database, by way of it.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise RuntimeError("there is no pgbouncer: apt-get install pgbouncer, or the like")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as name:
        folder = Path(name)
        (folder / "users").write_text(f'"postgres" "{PASSWORD}"\n')
        (folder / "pgbouncer.ini").write_text(_CONFIGURATION.format(server=server.port, port=port, folder=folder))
        # It does not run as root.
        user = "nobody" if os.geteuid() == 0 else None
        if user:
            subprocess.run(["chown", "-R", user, name], check=True)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([program, str(folder / "pgbouncer.ini")], stdout=log, stderr=log, user=user)
        try:
            url = server.url(port=port)
            _wait(url, process, folder / "log")
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError as exc:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()) from exc
            time.sleep(0.05)

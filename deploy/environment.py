"""Makes or refreshes the environments of the Makefile, with nothing but Python's standard library::

    python3 deploy/environment.py run|dev|deploy|lowest|both

``run`` is what the demo needs, ``dev`` adds what tests, linters and packaging need, ``deploy`` what checks the files
for containers, Kubernetes and proxies: all three are in ``.venv``. ``lowest`` is what tests need beside the lowest
Airflow that is supported, in ``.venv-lowest``. ``both`` has the official provider beside this one, in ``.venv-both``.
Each leaves a stamp of its name that holds the hash of pyproject.toml and of what was asked for, so that an environment
that fits is left alone. One at a time in each: the next waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
AIRFLOW = "apache-airflow==3.3.*"
PIP = "pip>=25.1"  # the first with --group


@dataclass(frozen=True)
class Kind:
    """What somebody may ask for.

    :param venv: the environment's folder.
    :param what: is installed, in words.
    :param arguments: of ``pip install``.
    :param after: the kinds that are installed before it, in the same environment.
    """

    venv: Path
    what: str
    arguments: tuple[str, ...]
    after: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def whole(self) -> bool:
        """Whether there is an environment to install into."""
        return self.python.exists() and (self.venv / "bin" / "pip").exists()

    @property
    def fingerprint(self) -> str:
        told = (ROOT / "pyproject.toml").read_bytes() + "\n".join(self.arguments).encode()
        return hashlib.sha256(told).hexdigest() + "\n"


PACKAGE = ("-e", ".[server,airflow]")
KINDS = {
    "run": Kind(ROOT / ".venv", "the package with Airflow 3.3", (*PACKAGE, AIRFLOW)),
    "dev": Kind(
        ROOT / ".venv",
        "tools for tests, linting and packaging",
        ("-e", ".[server,postgres,airflow]", "--group", "dev"),
        after=("run",),
    ),
    "deploy": Kind(ROOT / ".venv", "tools that check deploy/", ("--group", "deploy"), after=("run", "dev")),
    "lowest": Kind(
        ROOT / ".venv-lowest", "the package with the lowest Airflow, and tests", (*PACKAGE, "--group", "lowest")
    ),
    "both": Kind(ROOT / ".venv-both", "the package and the official provider", (*PACKAGE, AIRFLOW, "--group", "both")),
}


def main() -> int:
    kind = KINDS.get(sys.argv[1]) if len(sys.argv) == 2 else None
    if kind is None:
        print(__doc__, file=sys.stderr)
        return 2
    kind.venv.mkdir(exist_ok=True)
    with locked(kind.venv / ".lock"):
        return 0 if all(install(name) for name in (*kind.after, sys.argv[1])) else 1


def install(name: str) -> bool:
    kind = KINDS[name]
    stamp = kind.venv / f".stamp-{name}"
    if kind.whole and stamp.exists() and stamp.read_text() == kind.fingerprint:
        stamp.touch()
        return True
    started = time.monotonic()
    if not kind.whole and not create(kind):
        return False
    steps = (("a current pip", ("--upgrade", PIP)), (kind.what, kind.arguments))
    for number, (what, arguments) in enumerate(steps, 1):
        label = f"[{number}/{len(steps)}] installing {what}"
        command = [str(kind.python), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
        if not run(label, command, kind.venv / "install.log"):
            return False
    stamp.write_text(kind.fingerprint)
    print(f"{kind.venv.name} is ready ({name}) after {time.monotonic() - started:.0f} s", flush=True)
    return True


def create(kind: Kind) -> bool:
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"making {kind.venv.name} with Python {version} ({sys.executable})", flush=True)
    try:
        venv.EnvBuilder(with_pip=True, symlinks=True).create(kind.venv)
    except (OSError, subprocess.CalledProcessError) as exc:
        kind.python.unlink(missing_ok=True)  # or it would pass for a whole environment the next time
        print(
            f"can't make {kind.venv.name}: {exc}\nWhere the system's Python comes in parts (Debian, Ubuntu), install "
            f"its venv part first: apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv",
            file=sys.stderr,
        )
        return False
    return True


def run(label: str, command: list[str], log_file: Path) -> bool:
    """Run a step, and show that it moves: on a terminal all the time, elsewhere by a line every 10 seconds.

    :param log_file: for its output.
    """
    terminal = sys.stdout.isatty()
    started = time.monotonic()
    if not terminal:
        print(label, flush=True)
    with (
        log_file.open("w") as log,
        subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5 if terminal else 10)
                break
            elapsed, line = time.monotonic() - started, "".join(tail(log_file, 1)).strip()
            if terminal:
                width = os.get_terminal_size().columns - 1
                print(f"\r\x1b[K{f'{label}  {elapsed:.0f} s  {line}'[:width]}", end="", flush=True)
            else:
                print(f"      {elapsed:.0f} s  {line[:100]}", flush=True)
    elapsed = time.monotonic() - started
    if process.returncode:
        print(f"\n{label} failed after {elapsed:.0f} s; the end of {log_file}:", file=sys.stderr)
        print("\n".join(f"    {line}" for line in tail(log_file, 20)), file=sys.stderr)
        return False
    print(f"\r\x1b[K{label}: {elapsed:.0f} s" if terminal else f"      done, {elapsed:.0f} s", flush=True)
    return True


def tail(log_file: Path, lines: int) -> list[str]:
    return log_file.read_text(errors="replace").splitlines()[-lines:]


def environment() -> dict[str, str]:
    """Ours, without what would make pip install elsewhere."""
    away = ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PYTHONPATH", "PYTHONHOME")
    return {name: value for name, value in os.environ.items() if name not in away}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another make that installs into {path.parent.name}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

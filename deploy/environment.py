"""Makes or refreshes ``.venv`` for the Makefile, with nothing but Python's standard library::

    python3 deploy/environment.py run|dev

``run`` is what the demo needs, ``dev`` adds what tests, linters and packaging need. Each leaves a stamp in ``.venv``
that holds pyproject.toml's hash, so that an environment that fits is left alone. One at a time: the next waits.
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
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
AIRFLOW = "apache-airflow==3.3.*"
STEPS = {
    "run": (("the package with Airflow 3.3", ["-e", ".[server,airflow]", AIRFLOW]),),
    "dev": (("tools for tests, linting and packaging", ["--group", "dev"]),),
}
REQUIRES = {"run": (), "dev": ("run",)}
PIP = "pip>=25.1"  # the first with --group


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in STEPS:
        print(__doc__, file=sys.stderr)
        return 2
    VENV.mkdir(exist_ok=True)
    with locked(VENV / ".lock"):
        for kind in (*REQUIRES[sys.argv[1]], sys.argv[1]):
            if not install(kind):
                return 1
    return 0


def install(kind: str) -> bool:
    stamp = VENV / f".stamp-{kind}"
    fingerprint = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest() + "\n"
    whole = PYTHON.exists() and (VENV / "bin" / "pip").exists()
    if whole and stamp.exists() and stamp.read_text() == fingerprint:
        stamp.touch()
        return True
    started = time.monotonic()
    if not whole and not create():
        return False
    steps = (("a current pip", ["--upgrade", PIP]), *STEPS[kind])
    for number, (what, arguments) in enumerate(steps, 1):
        label = f"[{number}/{len(steps)}] installing {what}"
        if not run(label, [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *arguments]):
            return False
    stamp.write_text(fingerprint)
    print(f".venv is ready ({kind}) after {time.monotonic() - started:.0f} s", flush=True)
    return True


def create() -> bool:
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"making .venv with Python {version} ({sys.executable})", flush=True)
    try:
        venv.EnvBuilder(with_pip=True, symlinks=True).create(VENV)
    except (OSError, subprocess.CalledProcessError) as exc:
        PYTHON.unlink(missing_ok=True)  # or it would pass for a whole environment the next time
        print(
            f"can't make .venv: {exc}\nWhere the system's Python comes in parts (Debian, Ubuntu), install its venv "
            f"part first: apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv",
            file=sys.stderr,
        )
        return False
    return True


def run(label: str, command: list[str]) -> bool:
    """Run a step, and show that it moves: on a terminal all the time, elsewhere by a line every 10 seconds."""
    terminal = sys.stdout.isatty()
    started = time.monotonic()
    if not terminal:
        print(label, flush=True)
    with (
        LOG.open("w") as log,
        subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5 if terminal else 10)
                break
            elapsed, line = time.monotonic() - started, "".join(tail(1)).strip()
            if terminal:
                width = os.get_terminal_size().columns - 1
                print(f"\r\x1b[K{f'{label}  {elapsed:.0f} s  {line}'[:width]}", end="", flush=True)
            else:
                print(f"      {elapsed:.0f} s  {line[:100]}", flush=True)
    elapsed = time.monotonic() - started
    if process.returncode:
        print(f"\n{label} failed after {elapsed:.0f} s; the end of {LOG}:", file=sys.stderr)
        print("\n".join(f"    {line}" for line in tail(20)), file=sys.stderr)
        return False
    print(f"\r\x1b[K{label}: {elapsed:.0f} s" if terminal else f"      done, {elapsed:.0f} s", flush=True)
    return True


def tail(lines: int) -> list[str]:
    return LOG.read_text(errors="replace").splitlines()[-lines:]


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
            print("waiting for another make that installs into .venv", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

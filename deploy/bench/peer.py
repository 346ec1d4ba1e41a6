"""Makes or refreshes ``.venv-bench``, where the official provider lives, with nothing but Python's standard library::

    PYTHONPATH=. python deploy/bench/peer.py

A stamp in it holds what is installed, so that an environment that fits is left alone.
"""

from __future__ import annotations

import os
import sys
import time
import venv

from deploy import environment

PROVIDER = "6.2.0"
REQUIREMENTS = [f"apache-airflow-providers-airbyte=={PROVIDER}", environment.AIRFLOW, "psutil"]
VENV = environment.ROOT / ".venv-bench"
PYTHON = VENV / "bin" / "python"


def ready() -> bool:
    stamp = VENV / ".stamp"
    return PYTHON.exists() and stamp.exists() and stamp.read_text() == _fingerprint()


def main() -> int:
    VENV.mkdir(exist_ok=True)
    with environment.locked(VENV / ".lock"):
        if ready():
            return 0
        started = time.monotonic()
        if not PYTHON.exists():
            print(f"making .venv-bench with {sys.executable}", flush=True)
            venv.EnvBuilder(with_pip=True, symlinks=True).create(VENV)
        what = f"installing the official provider {PROVIDER} with Airflow"
        pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
        if not environment.run(what, [*pip, *REQUIREMENTS], VENV / "install.log"):
            return 1
        (VENV / ".stamp").write_text(_fingerprint())
        print(f".venv-bench is ready after {time.monotonic() - started:.0f} s", flush=True)
    return 0


def _fingerprint() -> str:
    return "\n".join([*REQUIREMENTS, os.path.realpath(sys.executable)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())

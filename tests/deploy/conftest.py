"""What deploy/ is checked with. No container engine is needed; what a check lacks, it says in place of its result."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _find(name: str, package: str) -> str:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"))
    if (found := shutil.which(name, path=path)) is None:
        pytest.skip(f"NOT CHECKED: {name} is not here ({package})")
    return found


@pytest.fixture
def deploy() -> Path:
    """The folder."""
    return ROOT / "deploy"


@pytest.fixture
def check() -> Callable[..., str]:
    """Run a tool, which has to succeed; what it prints. ``package`` is where it comes from."""

    def run(name: str, *arguments: str | Path, package: str) -> str:
        command = [_find(name, package), *map(str, arguments)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
        return done.stdout

    return run


@pytest.fixture
def find() -> Callable[[str, str], str]:
    """Where a tool is."""
    return _find


@pytest.fixture
def helm() -> ModuleType:
    """Helm itself, as a library."""
    try:
        return importlib.import_module("helm_python")
    except (ImportError, OSError) as exc:
        pytest.skip(f"NOT CHECKED: Helm is not here (helm-python-sdk from PyPI): {exc}")

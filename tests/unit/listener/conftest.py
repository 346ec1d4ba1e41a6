"""What the tests of settings share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def setenv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """An environment without settings and an empty working directory; call it to set ``AIRBYTE_EVENTS_*``."""
    for name in list(os.environ):
        if name.startswith("AIRBYTE_EVENTS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def setenv(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"AIRBYTE_EVENTS_{name}", str(value))

    return setenv

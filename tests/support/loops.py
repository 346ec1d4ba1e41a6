"""The event loop of tests that run on one alone. A module imports the fixture: ``anyio_backend as anyio_backend``."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """uvicorn's."""
    return "asyncio"

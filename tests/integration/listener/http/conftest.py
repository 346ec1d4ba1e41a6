"""What the tests of the listener's routes share."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """uvicorn's."""
    return "asyncio"

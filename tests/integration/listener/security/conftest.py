"""What strangers can do to a listener: next to nothing, and nothing for long."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.exposed import ExposedListener, listening
from support.loops import anyio_backend as anyio_backend


@pytest.fixture
async def exposed() -> AsyncIterator[ExposedListener]:
    async with listening() as exposed:
        yield exposed

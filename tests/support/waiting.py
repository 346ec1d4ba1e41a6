"""How tests wait for what no event announces."""

from __future__ import annotations

import anyio


async def a_moment() -> None:
    """Wait before a condition is checked again. Without that, a test takes a processor from those it waits for."""
    await anyio.sleep(0.005)

"""A block of code that ends when something else does."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from airbyte_events._utils.until import until

pytestmark = pytest.mark.anyio


async def test_the_end_of_the_work_cancels_the_body() -> None:
    went_on = False
    async with until(anyio.lowlevel.checkpoint):
        await anyio.sleep_forever()
        went_on = True
    assert not went_on


async def test_the_end_of_the_body_cancels_the_work() -> None:
    cancelled = False

    async def work() -> None:
        nonlocal cancelled
        try:
            await anyio.sleep_forever()
        finally:
            cancelled = True

    async with until(work):
        await anyio.wait_all_tasks_blocked()
    assert cancelled


async def test_an_error_of_the_body_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="the body"):
        async with until(anyio.sleep_forever):
            raise ValueError("the body")


async def test_an_error_of_the_work_cancels_the_body_and_is_raised_as_it_is() -> None:
    async def work() -> None:
        raise ValueError("the work")

    with pytest.raises(ValueError, match="the work"):
        async with until(work):
            await anyio.sleep_forever()


async def test_a_cancellation_from_outside_cancels_both() -> None:
    with anyio.move_on_after(0.01) as outside:
        async with until(anyio.sleep_forever):
            await anyio.sleep_forever()
    assert outside.cancelled_caught

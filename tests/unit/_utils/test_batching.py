"""Operations that wait for their batch."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest

from airbyte_events._utils.batching import Batcher, Failed

pytestmark = pytest.mark.anyio


class Doubler:
    """Doubles numbers; a batch that holds 0 waits until it is released, 13 fails alone and 666 with its batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.release = anyio.Event()

    async def __call__(self, batch: Sequence[int]) -> list[int | Failed]:
        self.batches.append(list(batch))
        if 0 in batch:
            await self.release.wait()
        if 666 in batch:
            raise LookupError("batch")
        return [Failed(ValueError("item")) if number == 13 else 2 * number for number in batch]


async def submit_while_one_runs(numbers: Sequence[int], batcher: Batcher[int, int], doubler: Doubler) -> list[object]:
    """Submit these, in this order, while a batch runs; return the result or the type of the error of each."""
    results: dict[int, object] = {}

    async def submit(position: int, number: int) -> None:
        try:
            results[position] = await batcher.submit(number)
        except (LookupError, ValueError) as exc:
            results[position] = type(exc)

    async with anyio.create_task_group() as tasks:
        for position, number in enumerate([0, *numbers], start=-1):
            tasks.start_soon(submit, position, number)
            await anyio.wait_all_tasks_blocked()
        doubler.release.set()
    return [results[position] for position in range(len(numbers))]


async def test_what_is_submitted_while_a_batch_runs_is_the_next_one_in_order() -> None:
    doubler = Doubler()
    async with Batcher(doubler) as batcher:
        assert await submit_while_one_runs([3, 1, 2], batcher, doubler) == [6, 2, 4]
        assert await batcher.submit(4) == 8
    assert doubler.batches == [[0], [3, 1, 2], [4]]


async def test_a_batch_has_at_most_so_many_items() -> None:
    doubler = Doubler()
    async with Batcher(doubler, max_items=2) as batcher:
        assert await submit_while_one_runs([1, 2, 3], batcher, doubler) == [2, 4, 6]
    assert doubler.batches == [[0], [1, 2], [3]]


async def test_a_batch_has_at_most_such_a_size_but_for_a_single_item() -> None:
    doubler = Doubler()
    async with Batcher(doubler, size=lambda number: number, max_size=5) as batcher:
        assert await submit_while_one_runs([2, 3, 1, 9, 5], batcher, doubler) == [4, 6, 2, 18, 10]
    assert doubler.batches == [[0], [2, 3], [1], [9], [5]]


async def test_the_error_of_an_item_is_raised_for_it_alone() -> None:
    doubler = Doubler()
    async with Batcher(doubler) as batcher:
        assert await submit_while_one_runs([1, 13, 2], batcher, doubler) == [2, ValueError, 4]


async def test_the_error_of_a_batch_is_raised_for_all_of_it_and_for_nothing_else() -> None:
    doubler = Doubler()
    async with Batcher(doubler, max_items=2) as batcher:
        assert await submit_while_one_runs([1, 666, 2], batcher, doubler) == [LookupError, LookupError, 4]


async def test_a_batch_with_too_few_results_fails() -> None:
    async def forget(batch: Sequence[int]) -> list[int]:
        return []

    async with Batcher(forget) as batcher:
        with pytest.raises(RuntimeError, match="0 results for a batch of 1"):
            await batcher.submit(1)


async def test_a_caller_that_is_cancelled_before_its_batch_begins_withdraws_the_item() -> None:
    doubler = Doubler()
    async with Batcher(doubler) as batcher, anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.submit, 0)
        await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(0.01) as leaving:
            await batcher.submit(1)
        assert leaving.cancelled_caught
        tasks.start_soon(batcher.submit, 2)
        doubler.release.set()
    assert doubler.batches == [[0], [2]]


async def test_a_caller_that_is_cancelled_while_its_batch_runs_leaves_at_once_and_the_batch_goes_on() -> None:
    finished: list[int] = []
    release = anyio.Event()

    async def run(batch: Sequence[int]) -> Sequence[int]:
        await release.wait()
        finished.extend(batch)
        return batch

    async with Batcher(run) as batcher:
        with anyio.move_on_after(0.01) as leaving:
            await batcher.submit(1)
        assert leaving.cancelled_caught
        assert finished == []
        release.set()
    assert finished == [1]


async def test_closing_refuses_new_items_and_runs_those_that_wait() -> None:
    doubler = Doubler()
    batcher = Batcher(doubler)
    close = anyio.Event()
    order: list[object] = []

    async def keep_open() -> None:
        async with batcher:
            await close.wait()
        order.append("closed")

    async def submit(number: int) -> None:
        order.append(await batcher.submit(number))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_open)
        await anyio.wait_all_tasks_blocked()
        for number in (0, 1):
            tasks.start_soon(submit, number)
            await anyio.wait_all_tasks_blocked()
        close.set()
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.ClosedResourceError):
            await batcher.submit(2)
        assert order == []
        doubler.release.set()
    assert doubler.batches == [[0], [1]]
    assert set(order) == {0, 2, "closed"}


async def test_a_cancelled_process_finishes_the_batch_that_it_has_begun() -> None:
    finished: list[int] = []
    begun = anyio.Event()

    async def run(batch: Sequence[int]) -> Sequence[int]:
        begun.set()
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        finished.extend(batch)
        return batch

    async with anyio.create_task_group() as process, Batcher(run) as batcher:
        process.start_soon(batcher.submit, 1)
        await begun.wait()
        process.cancel_scope.cancel()
    assert finished == [1]


async def test_what_the_body_raises_is_not_wrapped() -> None:
    with pytest.raises(LookupError, match="body"):
        async with Batcher(Doubler()):
            raise LookupError("body")

"""The gate before a server in trouble, in the order of events rather than by the clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from airbyte_events.airbyte.circuit_breaker import Backoff, again, transient
from airbyte_events.errors import (
    AirbyteError,
    AirbyteProtocolError,
    AirbyteStatusError,
    AirbyteUnreachable,
    Conflict,
    NotFound,
    NotSent,
    RateLimited,
    ServerError,
)
from support.waiting import in_background

pytestmark = pytest.mark.anyio

Send = Callable[[], Awaitable[str]]


def failing(error: AirbyteError) -> Send:
    async def send() -> str:
        raise error

    return send


async def fine() -> str:
    return "fine"


async def fail(backoff: Backoff, error: AirbyteError | None = None) -> None:
    with pytest.raises(AirbyteError):
        await backoff.attempt(failing(error or ServerError(503, "busy")))


def test_what_is_transient() -> None:
    assert transient(AirbyteUnreachable("x"))
    assert transient(NotSent("x"))
    assert transient(RateLimited(429, "x"))
    assert transient(ServerError(500, "x"))
    assert transient(AirbyteStatusError(408, "x"))
    assert transient(AirbyteStatusError(425, "x"))
    assert not transient(AirbyteStatusError(400, "x"))
    assert not transient(NotFound(404, "x"))
    assert not transient(AirbyteProtocolError("x"))


async def test_waiting_times_grow_with_full_jitter_up_to_the_cap() -> None:
    drawn = [1.0]
    backoff = Backoff(base=8.0, cap=20.0, random=lambda: drawn[0])

    assert backoff.remaining == 0
    await fail(backoff)
    assert backoff.remaining == pytest.approx(8.0, abs=0.5)
    # The next ones would wait; what matters here is what each failure asks for.
    for expected in (16.0, 20.0, 20.0):
        with pytest.raises(ServerError):
            await backoff.observe(failing(ServerError(500, "x")))
        assert backoff.remaining == pytest.approx(expected, abs=0.5)
    drawn[0] = 0.25
    with pytest.raises(ServerError):
        await backoff.observe(failing(ServerError(500, "x")))
    assert backoff.remaining == pytest.approx(5.0, abs=0.5)
    assert backoff.failures == 5


async def test_a_thousand_failures_do_not_overflow() -> None:
    backoff = Backoff(base=1.0, cap=60.0, random=lambda: 1.0)
    for _ in range(2000):
        with pytest.raises(ServerError):
            await backoff.observe(failing(ServerError(500, "x")))
    assert 59 < backoff.remaining <= 60


async def test_success_opens_it_and_so_does_any_other_answer() -> None:
    backoff = Backoff(random=lambda: 0.0)
    await fail(backoff)
    assert await backoff.attempt(fine) == "fine"
    assert backoff.failures == 0

    await fail(backoff)
    with pytest.raises(Conflict):
        await backoff.attempt(failing(Conflict(409, "x")))
    assert backoff.failures == 0


async def test_retry_after_is_obeyed_up_to_the_limit() -> None:
    backoff = Backoff(longest=50.0, random=lambda: 0.0)
    await fail(backoff, RateLimited(429, "x", retry_after=30.0))
    assert backoff.remaining == pytest.approx(30.0, abs=0.5)

    with pytest.raises(RateLimited):
        await backoff.observe(failing(RateLimited(429, "x", retry_after=86400.0)))
    assert backoff.remaining == pytest.approx(50.0, abs=0.5)


async def test_failures_of_one_burst_count_once() -> None:
    backoff = Backoff(base=8.0, random=lambda: 1.0)
    release = anyio.Event()

    async def send() -> str:
        await release.wait()
        raise ServerError(503, "busy")

    async def call() -> None:
        with pytest.raises(ServerError):
            await backoff.attempt(send)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            release.set()

    assert backoff.failures == 1
    assert backoff.remaining <= 8.0


async def test_a_late_success_from_before_the_failure_opens_nothing() -> None:
    backoff = Backoff(random=lambda: 0.0)
    release = anyio.Event()

    async def slow() -> str:
        await release.wait()
        return "late"

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backoff.attempt, slow)
            await anyio.wait_all_tasks_blocked()
            await fail(backoff)
            release.set()
    assert backoff.failures == 1


async def test_one_caller_tries_and_the_others_share_its_failure() -> None:
    backoff = Backoff(random=lambda: 0.0)
    await fail(backoff)
    release = anyio.Event()
    sent, caught = [], []

    async def call() -> None:
        async def send() -> str:
            sent.append(1)
            await release.wait()
            raise ServerError(503, "busy")

        try:
            await backoff.attempt(send)
        except ServerError as exc:
            caught.append(exc)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            assert len(sent) == 1
            release.set()

    assert len(sent) == 1
    assert len(caught) == len({id(exc) for exc in caught}) == 100
    assert {str(exc) for exc in caught} == {"busy"}


async def test_one_caller_tries_and_the_others_follow_its_success() -> None:
    backoff = Backoff(random=lambda: 0.0)
    await fail(backoff)
    release = anyio.Event()
    sent = []

    async def send() -> str:
        sent.append(1)
        await release.wait()
        return "fine"

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(backoff.attempt, send)
            await anyio.wait_all_tasks_blocked()
            assert len(sent) == 1
            release.set()
    assert len(sent) == 100


async def test_who_tries_may_be_cancelled_and_the_next_one_tries() -> None:
    backoff = Backoff(random=lambda: 0.0)
    await fail(backoff)

    async with in_background(backoff.attempt, anyio.sleep_forever):
        await anyio.wait_all_tasks_blocked()

    with anyio.fail_after(30):
        assert await backoff.attempt(fine) == "fine"


async def test_alone_shares_no_failure_and_holds_up_nobody() -> None:
    backoff = Backoff(random=lambda: 0.0)
    await fail(backoff)

    async with in_background(backoff.attempt_alone, anyio.sleep_forever):
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(30):
            assert await backoff.attempt(fine) == "fine"


def test_the_same_error_again() -> None:
    error = RateLimited(429, "slow down", type="x", retry_after=3.0)
    twin = again(error)

    assert isinstance(twin, RateLimited)
    assert (twin.status_code, str(twin), twin.type, twin.retry_after) == (429, "slow down", "x", 3.0)
    assert twin is not error
    assert twin.__cause__ is error
    assert type(again(NotSent("x"))) is NotSent


async def test_how_long_it_has_failed_is_from_the_first_failure_to_the_last() -> None:
    """The time in which nobody asked says nothing."""
    backoff = Backoff(base=0.0)
    assert backoff.failing_for == 0
    await fail(backoff)
    await anyio.sleep(0.05)
    assert backoff.failing_for == 0
    await fail(backoff)
    assert backoff.failing_for >= 0.05
    await backoff.attempt(fine)
    assert backoff.failing_for == 0

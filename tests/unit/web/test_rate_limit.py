"""ConnectionLimits on what strangers may do, in a time of their own."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from starlette.responses import Response

from airbyte_events._utils.token_bucket import TokenBucket, charge, charged, refund
from airbyte_events.web.rate_limit import MOST_ADDRESSES, REFUSALS_AT_ONCE, REFUSALS_PER_SECOND, ClientAccess


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def scope(address: str) -> dict[str, Any]:
    return {"type": "http", "client": (address, 1), "headers": []}


def statuses(access: ClientAccess, address: str, count: int) -> list[int]:
    return [access.refuse(scope(address), Response(status_code=404)).status_code for _ in range(count)]


class TestTokenBucket:
    def test_so_many_at_once_and_then_so_many_a_second(self) -> None:
        clock = Clock()
        bucket = TokenBucket(rate=2, burst=5, clock=clock)
        assert bucket.take(3) == 3
        assert bucket.take(9) == 2
        assert (bucket.left, bucket.take()) == (0, 0)
        clock.now += 0.4
        assert bucket.take() == 0
        clock.now += 0.1
        assert bucket.take(2) == 1
        clock.now += 3600
        assert bucket.left == 5

    def test_what_is_charged_beyond_it_delays_later_ones_up_to_a_limit(self) -> None:
        clock = Clock()
        unlimited, limited = (
            TokenBucket(rate=1, burst=2, clock=clock),
            TokenBucket(rate=1, burst=2, debt=1, clock=clock),
        )
        for _ in range(7):
            unlimited.charge()
            limited.charge()
        clock.now += 2
        assert (unlimited.left, limited.left) == (0, 1)
        clock.now += 4
        assert (unlimited.left, limited.left) == (1, 2)

    @pytest.mark.anyio
    async def test_waits_until_there_is_one(self) -> None:
        bucket = TokenBucket(rate=50, burst=2)
        await bucket.wait()
        assert bucket.take(2) == 2
        with anyio.fail_after(30):
            await bucket.wait()
        assert bucket.take() == 1


class TestRefunds:
    def test_requests_are_refunded_up_to_those_that_were_charged(self) -> None:
        bucket = TokenBucket(rate=1, burst=10, clock=Clock())
        with charged(bucket):
            for _ in range(4):
                charge()
            assert bucket.left == 6
            refund(1.25)
            assert bucket.left == 7
            refund(100)
            assert bucket.left == 10
            # What was left of it pays for the next ones.
            charge()
            refund(0)
            assert bucket.left == 10
        charge()
        refund(3)
        assert bucket.left == 10

    def test_each_block_has_refunds_of_its_own(self) -> None:
        bucket = TokenBucket(rate=1, burst=10, clock=Clock())
        with charged(bucket):
            charge()
        with charged(bucket):
            charge()
            refund(5)
        assert bucket.left == 9


class TestVisitors:
    def test_too_many_refusals_are_429_until_time_has_passed(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = Clock()
        access = ClientAccess(clock=clock)
        assert statuses(access, "192.0.2.1", REFUSALS_AT_ONCE + 2) == [404] * REFUSALS_AT_ONCE + [429] * 2
        answer = access.refuse(scope("192.0.2.1"), Response(status_code=401))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert statuses(access, "192.0.2.2", 1) == [404]
        clock.now += 1 / REFUSALS_PER_SECOND
        assert statuses(access, "192.0.2.1", 2) == [404, 429]
        # One line, however many there are.
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage().endswith("address=192.0.2.1")

    def test_is_bounded_in_memory(self) -> None:
        access = ClientAccess(clock=Clock())
        for number in range(5 * MOST_ADDRESSES):
            statuses(access, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1)
        assert access.remembered == MOST_ADDRESSES

    def test_the_one_that_goes_on_is_not_forgotten_for_others(self) -> None:
        access = ClientAccess(most=8, clock=Clock())
        statuses(access, "192.0.2.1", REFUSALS_AT_ONCE)
        for number in range(100):
            assert statuses(access, "192.0.2.1", 1) == [429]
            statuses(access, f"10.0.0.{number}", 1)

    def test_addresses_of_one_ipv6_site_are_one(self) -> None:
        access = ClientAccess(clock=Clock())
        found = [statuses(access, f"2001:db8:0:1::{number:x}", 1)[0] for number in range(1, REFUSALS_AT_ONCE + 3)]
        assert found == [404] * REFUSALS_AT_ONCE + [429] * 2
        assert statuses(access, "2001:db8:0:2::1", 1) == [404]
        assert access.remembered == 2

    def test_who_may_send_webhooks(self) -> None:
        access = ClientAccess(allowed=["192.0.2.0/24"], proxies=["10.0.0.1"])
        assert access.may_send(scope("192.0.2.1"))
        assert not access.may_send(scope("10.0.0.1"))
        assert not access.may_send({"type": "http", "client": None, "headers": []})
        forwarded = {**scope("10.0.0.1"), "headers": [(b"x-forwarded-for", b"192.0.2.7")]}
        assert access.may_send(forwarded)
        assert not access.may_send({**forwarded, "client": ("10.0.0.2", 1)})
        assert ClientAccess().may_send(scope("203.0.113.1"))

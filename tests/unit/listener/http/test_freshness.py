"""When connections last succeeded, of a bounded number of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airbyte_events.events import JobEvent, JobStatus
from airbyte_events.listener.http.freshness import Freshness
from airbyte_events.store.memory.store import MemoryStore
from support.events import event_of

NOON = datetime(2026, 5, 17, 12, tzinfo=UTC)


def success(job_id: int, connection_id: str, minutes: float, name: str = "", **values: Any) -> JobEvent:
    names = {"connection": name} if name else {}
    event = event_of(job_id, connection_id=connection_id)
    return replace(event, finished_at=NOON + timedelta(minutes=minutes), names=names, **values)


def shown(kept: Freshness) -> dict[str, tuple[float, str]]:
    return {key[1]: ((each.at - NOON).total_seconds() / 60, each.name) for key, each in kept.successes.items()}


def test_the_newest_success_counts_in_whichever_order_they_come() -> None:
    kept = Freshness(5)
    for event in (success(2, "C1", 20), success(3, "c1", 30, "Orders"), success(1, "c1", 10, "Old name")):
        kept.add(event)
    assert shown(kept) == {"c1": (30, "Orders")}


def test_only_successes_that_load_data_count() -> None:
    kept = Freshness(5)
    kept.add(success(1, "c1", 10, status=JobStatus.FAILED))
    kept.add(success(2, "c1", 10, status=JobStatus.RUNNING))
    kept.add(success(3, "c1", 10, job_type="reset"))
    kept.add(success(4, "c1", 10, job_type="clear"))
    kept.add(replace(success(5, "c1", 10), connection_id=None))
    assert not kept.successes
    kept.add(success(6, "c1", 10, job_type="refresh"))
    assert shown(kept) == {"c1": (10, "")}


def test_no_more_connections_than_wanted_and_the_others_are_counted() -> None:
    kept = Freshness(2, most_hidden=3)
    for _ in range(2):
        for number in range(9):
            kept.add(success(number, f"c{number}", number))
    assert shown(kept).keys() == {"c0", "c1"}
    assert kept.hidden == 3


def test_none_is_kept_if_none_is_wanted() -> None:
    kept = Freshness()
    kept.add(success(1, "c1", 10))
    assert (kept.successes, kept.hidden) == ({}, 0)


@pytest.mark.anyio
async def test_what_the_store_has_is_read_page_by_page() -> None:
    async with MemoryStore() as store:
        await store.append([success(number, f"c{number % 3}", number) for number in range(10)])
        await store.append([success(50, "c0", 50, status=JobStatus.FAILED)])
        kept = Freshness(5, page=4)
        await kept.load(store)
        assert shown(kept) == {"c0": (9, ""), "c1": (7, ""), "c2": (8, "")}
        await store.append([success(60, "c0", 60)])
        # What comes later is told.
        await kept.load(store)
        assert shown(kept)["c0"] == (9, "")


@pytest.mark.anyio
async def test_no_more_states_are_read_than_wanted() -> None:
    async with MemoryStore() as store:
        await store.append([success(number, f"c{number}", number) for number in range(9)])
        kept = Freshness(50, most_states=4, page=2)
        await kept.load(store)
        assert shown(kept).keys() == {"c8", "c7", "c6", "c5"}

"""Places: what was told, what is to be told, what is kept of it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from airbyte_events.events import EventFilter, JobStatus
from airbyte_events.hub.position import MAX_DELIVERED, OVERLAP, Position, completed_before
from support.stored import NOON, ended

MINUTE = timedelta(minutes=1)


def test_what_was_told_is_known_for_an_hour_by_its_job_and_then_by_its_time() -> None:
    place = Position(since=NOON)
    place.record(ended(1))
    place.advance(NOON + MINUTE)
    place.advance(NOON + OVERLAP)
    assert place.covers(ended(1))
    assert not place.covers(ended(2))
    place.advance(NOON + OVERLAP + 2 * MINUTE)
    assert place.delivered == {}
    assert place.covers(ended(1))
    assert not place.covers(ended(2, NOON + 3 * MINUTE))


def test_an_end_without_a_time_is_known_by_its_job() -> None:
    place = Position(since=NOON, floor=NOON)
    assert not place.covers(ended(1, None))
    place.record(ended(1))
    assert place.covers(ended(1, None))


def test_a_number_that_was_given_again_is_another_job() -> None:
    place = Position(since=NOON)
    place.record(ended(1, started_at=NOON - MINUTE))
    place.advance(NOON + MINUTE)
    assert place.covers(ended(1, started_at=NOON - MINUTE))
    assert not place.covers(ended(1, NOON + 2 * MINUTE, started_at=NOON + MINUTE))
    kept = Position.from_data(json.loads(json.dumps(place.data())))
    assert kept.covers(ended(1, started_at=NOON - MINUTE))
    assert not kept.covers(ended(1, NOON + 2 * MINUTE, started_at=NOON + MINUTE))


def test_a_place_that_an_older_version_kept_knows_jobs_by_their_numbers() -> None:
    kept = Position.from_data({"since": "2024-05-01T12:00:00Z", "floor": None, "told": [1]})
    assert kept.covers(ended(1, started_at=NOON))
    assert not kept.covers(ended(2, started_at=NOON))


def test_an_older_version_can_read_a_place() -> None:
    place = Position(since=NOON)
    place.record(ended(1, started_at=NOON))
    place.record(ended(2))
    assert (place.data()["told"], place.data()["started"]) == ([1, 2], [int(NOON.timestamp()), None])


def test_time_does_not_go_back() -> None:
    place = Position(since=NOON)
    place.advance(NOON - MINUTE)
    assert place.since == NOON


@pytest.mark.parametrize("wanted", ["clear", "reset"])
@pytest.mark.parametrize(("job_type", "matches"), [("clear", True), ("reset", True), ("sync", False), (None, False)])
def test_a_clear_is_a_reset_to_whoever_wants_either(wanted: str, job_type: str | None, matches: bool) -> None:
    assert EventFilter(job_types=frozenset([wanted])).matches(ended(1, job_type=job_type)) is matches


def test_a_floor_stays() -> None:
    place = Position()
    place.advance(NOON, NOON - MINUTE)
    assert place.floor == NOON - MINUTE
    assert place.covers(ended(1, NOON - 2 * MINUTE))


def test_what_is_told_is_bounded() -> None:
    place = Position(since=NOON)
    for job_id in range(MAX_DELIVERED + 10):
        place.record(ended(job_id))
    assert len(place.delivered) == MAX_DELIVERED
    assert not place.covers(ended(0))


def test_a_place_survives_being_kept() -> None:
    place = Position(since=NOON, floor=NOON - MINUTE)
    place.record(ended(3))
    place.advance(NOON + MINUTE)
    place.record(ended(5))
    again = Position.from_data(json.loads(json.dumps(place.data())))
    assert (again.since, again.floor, set(again.delivered)) == (place.since, place.floor, set(place.delivered))
    again.advance(NOON + 2 * MINUTE)
    assert again.covers(ended(3, NOON + 2 * MINUTE))


@pytest.mark.parametrize("data", [None, [], {}, {"told": ["x"]}, {"told": [1], "since": "yesterday"}])
def test_what_is_no_place(data: object) -> None:
    with pytest.raises(ValueError, match="not a"):
        Position.from_data(data)


@pytest.mark.parametrize(
    ("at", "moment", "before"),
    [
        # Whole seconds may be cut.
        (NOON, NOON + timedelta(seconds=0.9), False),
        (NOON, NOON + timedelta(seconds=1), True),
        (NOON + timedelta(milliseconds=5), NOON + timedelta(milliseconds=5), False),
        (NOON + timedelta(milliseconds=5), NOON + timedelta(milliseconds=6), True),
        (None, NOON, False),
    ],
)
def test_what_has_surely_ended_before(at: datetime | None, moment: datetime, before: bool) -> None:
    assert completed_before(ended(1, at), moment) is before


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ({}, True),
        ({"connection_ids": frozenset(["C"])}, True),
        ({"connection_ids": frozenset(["d"])}, False),
        ({"job_types": frozenset(["sync", "reset"])}, True),
        ({"job_types": frozenset(["reset"])}, False),
        ({"statuses": frozenset([JobStatus.FAILED])}, False),
    ],
)
def test_what_is_wanted(wanted: dict[str, frozenset[str]], matches: bool) -> None:
    assert EventFilter(**wanted).matches(ended(1)) is matches  # type: ignore[arg-type]

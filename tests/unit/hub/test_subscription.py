"""Places: what was told, what is to be told, what is kept of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from airbyte_events.events import JobError, JobEvent, JobRef, JobStatus, Origin
from airbyte_events.hub.subscription import (
    BUFFER,
    BUFFER_BYTES,
    KEPT,
    MOST_TOLD,
    Ends,
    Mark,
    Place,
    Wanted,
    ended_before,
)

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def end(job_id: int, at: datetime | None = NOON, **values: object) -> JobEvent:
    event = JobEvent(
        ref=JobRef("default", job_id),
        status=JobStatus.SUCCEEDED,
        observed_at=NOON,
        origin=Origin.POLL,
        connection_id="c",
        job_type="sync",
        finished_at=at,
    )
    return replace(event, **values)  # type: ignore[arg-type]


def test_what_was_told_is_known_for_an_hour_by_its_job_and_then_by_its_time() -> None:
    place = Place(since=NOON)
    place.tell(end(1))
    place.complete(NOON + MINUTE)
    place.complete(NOON + KEPT)
    assert place.knows(end(1))
    assert not place.knows(end(2))
    place.complete(NOON + KEPT + 2 * MINUTE)
    assert place.told == {}
    assert place.knows(end(1))
    assert not place.knows(end(2, NOON + 3 * MINUTE))


def test_an_end_without_a_time_is_known_by_its_job() -> None:
    place = Place(since=NOON, floor=NOON)
    assert not place.knows(end(1, None))
    place.tell(end(1))
    assert place.knows(end(1, None))


def test_a_number_that_was_given_again_is_another_job() -> None:
    place = Place(since=NOON)
    place.tell(end(1, started_at=NOON - MINUTE))
    place.complete(NOON + MINUTE)
    assert place.knows(end(1, started_at=NOON - MINUTE))
    assert not place.knows(end(1, NOON + 2 * MINUTE, started_at=NOON + MINUTE))
    kept = Place.from_data(json.loads(json.dumps(place.data())))
    assert kept.knows(end(1, started_at=NOON - MINUTE))
    assert not kept.knows(end(1, NOON + 2 * MINUTE, started_at=NOON + MINUTE))


def test_a_place_that_an_older_version_kept_knows_jobs_by_their_numbers() -> None:
    kept = Place.from_data({"since": "2024-05-01T12:00:00Z", "floor": None, "told": [1]})
    assert kept.knows(end(1, started_at=NOON))
    assert not kept.knows(end(2, started_at=NOON))


def test_an_older_version_can_read_a_place() -> None:
    place = Place(since=NOON)
    place.tell(end(1, started_at=NOON))
    place.tell(end(2))
    assert (place.data()["told"], place.data()["started"]) == ([1, 2], [int(NOON.timestamp()), None])


def test_time_does_not_go_back() -> None:
    place = Place(since=NOON)
    place.complete(NOON - MINUTE)
    assert place.since == NOON


@pytest.mark.parametrize("wanted", ["clear", "reset"])
@pytest.mark.parametrize(("job_type", "matches"), [("clear", True), ("reset", True), ("sync", False), (None, False)])
def test_a_clear_is_a_reset_to_whoever_wants_either(wanted: str, job_type: str | None, matches: bool) -> None:
    assert Wanted(job_types=frozenset([wanted])).matches(end(1, job_type=job_type)) is matches


def test_a_floor_stays() -> None:
    place = Place()
    place.complete(NOON, NOON - MINUTE)
    assert place.floor == NOON - MINUTE
    assert place.knows(end(1, NOON - 2 * MINUTE))


def test_what_is_told_is_bounded() -> None:
    place = Place(since=NOON)
    for job_id in range(MOST_TOLD + 10):
        place.tell(end(job_id))
    assert len(place.told) == MOST_TOLD
    assert not place.knows(end(0))


def test_a_place_survives_being_kept() -> None:
    place = Place(since=NOON, floor=NOON - MINUTE)
    place.tell(end(3))
    place.complete(NOON + MINUTE)
    place.tell(end(5))
    again = Place.from_data(json.loads(json.dumps(place.data())))
    assert (again.since, again.floor, set(again.told)) == (place.since, place.floor, set(place.told))
    again.complete(NOON + 2 * MINUTE)
    assert again.knows(end(3, NOON + 2 * MINUTE))


@pytest.mark.parametrize("data", [None, [], {}, {"told": ["x"]}, {"told": [1], "since": "yesterday"}])
def test_what_is_no_place(data: object) -> None:
    with pytest.raises(ValueError, match="not a"):
        Place.from_data(data)


@pytest.mark.parametrize(
    ("ended", "moment", "before"),
    [
        # Whole seconds may be cut.
        (NOON, NOON + timedelta(seconds=0.9), False),
        (NOON, NOON + timedelta(seconds=1), True),
        (NOON + timedelta(milliseconds=5), NOON + timedelta(milliseconds=5), False),
        (NOON + timedelta(milliseconds=5), NOON + timedelta(milliseconds=6), True),
        (None, NOON, False),
    ],
)
def test_what_has_surely_ended_before(ended: datetime | None, moment: datetime, before: bool) -> None:
    assert ended_before(end(1, ended), moment) is before


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
    assert Wanted(**wanted).matches(end(1)) is matches  # type: ignore[arg-type]
    assert not Wanted(**wanted).matches(end(1, status=JobStatus.RUNNING))  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_i5_what_finds_no_room_during_a_look_wants_another_look() -> None:
    ends = Ends(Wanted(), Place(since=NOON))
    ends.seek()
    for job_id in range(BUFFER):
        ends.offer(end(job_id), looked_up=True)
    ends.offer(end(BUFFER))
    ends.catch_up(NOON + MINUTE)
    assert [(await anext(ends)).ref.job_id for _ in range(BUFFER)] == list(range(BUFFER))
    assert isinstance(await ends.receive(), Mark)
    assert ends.overdue
    ends.seek()
    ends.offer(end(BUFFER), looked_up=True)
    ends.catch_up(NOON + 2 * MINUTE)
    assert (await anext(ends)).ref.job_id == BUFFER
    assert not ends.late


@pytest.mark.anyio
async def test_i5_what_a_look_of_all_left_out_during_a_followers_own_wants_another_look() -> None:
    ends = Ends(Wanted(), Place(since=NOON))
    ends.seek()
    ends.miss()
    ends.catch_up(NOON + MINUTE)
    assert ends.late


@pytest.mark.anyio
async def test_i6_what_waits_for_a_follower_is_bounded_in_bytes() -> None:
    ends = Ends(Wanted(), Place(since=NOON - MINUTE))
    ends.late = False
    error = JobError(message="x" * 50_000)
    for job_id in range(1, 200):
        ends.offer(end(job_id, error=error))
    assert ends._bytes <= BUFFER_BYTES + end(1, error=error).weight
    # The rest is found by a look of its own.
    assert ends.late
    held = [(await anext(ends)).ref.job_id for _ in range(len(ends._held))]
    assert held == list(range(1, len(held) + 1))
    assert ends._bytes == 0
    assert ends.overdue
    ends.offer(end(199, error=error), looked_up=True)
    assert (await anext(ends)).ref.job_id == 199

"""What every store promises."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from airbyte_events.errors import CursorExpired
from airbyte_events.events import EVERYTHING, EventFilter, JobError, JobEvent, JobRef, JobStatus, TaskReceipt
from airbyte_events.store.base import ANNOUNCEMENTS, PENDING_BYTES, EventStore
from airbyte_events.store.reconcile import Verdict
from airbyte_events.store.records import Outcome, Receipt
from support.stored import FAILED, NOON, RUNNING, SUCCEEDED, event, receipt_of, received, sequences
from support.waiting import in_background

from .conftest import Kind, one_of

pytestmark = pytest.mark.anyio


class TestAppend:
    async def test_news_enter_the_log_in_order(self, store: EventStore) -> None:
        assert await store.head() == 0
        assert (await store.read(0)).events == []
        verdicts = (await store.append([event(1), event(2), event(1), event(1, SUCCEEDED)])).verdicts
        assert verdicts == [Verdict.NEW, Verdict.NEW, Verdict.REPEAT, Verdict.NEW]
        page = await store.read(0)
        assert [(each.ref.job_id, each.status, each.previous_status) for each in page.events] == [
            (1, RUNNING, None),
            (2, RUNNING, None),
            (1, SUCCEEDED, RUNNING),
        ]
        assert sequences(page.events) == [1, 2, 3]
        assert {each.cursor.epoch for each in page.events if each.cursor} == {store.epoch}
        assert page.position == await store.head() == 3

    async def test_returns_the_events_and_states_that_a_reader_finds(self, store: EventStore) -> None:
        await store.append([event(3, FAILED)])
        appended = await store.append([event(1), event(2), event(1), event(1, SUCCEEDED), event(3)])
        assert appended.events == (await store.read(1)).events
        assert appended.states == await store.states([JobRef("default", job_id) for job_id in (1, 2, 3)])

    async def test_i2_one_terminal_event_per_job(self, store: EventStore) -> None:
        verdicts = (
            await store.append([event(1, SUCCEEDED), event(1, FAILED), event(1, SUCCEEDED), event(1, RUNNING)])
        ).verdicts
        assert verdicts == [Verdict.NEW, Verdict.CONTRADICTION, Verdict.REPEAT, Verdict.REPEAT]
        assert await store.head() == 1

    async def test_i2_under_concurrent_appends(self, store: EventStore) -> None:
        dice = random.Random(1)
        statuses = [RUNNING, JobStatus.PENDING, SUCCEEDED, FAILED, JobStatus.CANCELLED]
        verdicts: list[Verdict] = []

        async def observe(observed: list[JobEvent]) -> None:
            verdicts.extend((await store.append(observed)).verdicts)

        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                observed = [event(dice.randint(1, 10), dice.choice(statuses)) for _ in range(dice.randint(1, 8))]
                tasks.start_soon(observe, observed)
        page = await store.read(0, limit=10_000)
        assert sequences(page.events) == list(range(1, len(page.events) + 1))
        assert verdicts.count(Verdict.NEW) == len(page.events)
        ends = [each.ref for each in page.events if each.terminal]
        assert sorted(ends) == sorted(set(ends))
        for job_id in range(1, 11):
            told = [each for each in page.events if each.ref.job_id == job_id]
            assert await store.history(JobRef("default", job_id)) == told
            assert (await store.states([told[-1].ref]))[told[-1].ref] == told[-1]
            assert [each.previous_status for each in told] == [None, *(each.status for each in told[:-1])]
            assert not any(each.terminal for each in told[:-1])

    @pytest.mark.parametrize("wanted", [EVERYTHING, EventFilter(job_ids=frozenset({2, 4}))], ids=["all", "some"])
    async def test_i6_a_page_has_so_many_bytes(self, store: EventStore, wanted: EventFilter) -> None:
        error = JobError(message="x" * 10_000)
        await store.append([event(job_id, FAILED, error=error) for job_id in range(1, 41)])
        whole = [each for each in (await store.read(0)).events if wanted.matches(each)]
        for size, most in ((1, 1), (25_000, 3), (1_000_000, 40)):
            seen: list[JobEvent] = []
            position = 0
            while position < 40:
                page = await store.read(position, size=size, wanted=wanted)
                assert page.position > position
                assert len(page.events) <= most
                position = page.position
                seen += page.events
            assert seen == whole
        assert len((await store.read(0, size=25_000)).events) == 3
        assert len((await store.read(0, limit=2, size=25_000)).events) == 2

    async def test_order_is_commit_order(self, store: EventStore) -> None:
        seen: list[int] = []

        async def follow() -> None:
            while len(seen) < 200:
                position = seen[-1] if seen else 0
                await store.changed(position)
                seen.extend(sequences((await store.read(position, limit=7)).events))

        async def append(first: int) -> None:
            for job_id in range(first, first + 20):
                await store.append([event(job_id)])

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                for first in range(1, 201, 20):
                    tasks.start_soon(append, first)
        assert seen == list(range(1, 201))

    async def test_jobs_of_two_instances_are_two(self, store: EventStore) -> None:
        assert (await store.append([event(1, SUCCEEDED), event(1, FAILED, instance="other")])).verdicts == [
            Verdict.NEW
        ] * 2

    async def test_nothing_is_nothing(self, store: EventStore) -> None:
        assert (await store.append([])).verdicts == []
        assert await store.head() == 0

    async def test_keeps_all_of_an_event(self, store: EventStore) -> None:
        full = event(
            2**63 - 1,
            FAILED,
            instance="ключ",
            connection_id="c",
            workspace_id="w",
            job_type="sync",
            started_at=NOON - timedelta(microseconds=1),
            finished_at=NOON,
            records=0,
            bytes=2**63 - 1,
            duration_seconds=0.25,
            error=JobError(message='"\n☃', type=None, origin="source"),
            names={"source": "s"},
            url="https://x",
        )
        appended = await store.append([full])
        (stored,) = (await store.read(0)).events
        assert appended.events == [stored]
        assert stored.data() == full.data()
        assert (await store.states([full.ref]))[full.ref] == stored


class TestReusedNumber:
    """Airbyte's database was restored or made anew: a number is given again."""

    OLD = event(
        1,
        SUCCEEDED,
        connection_id="c",
        started_at=NOON,
        finished_at=NOON + timedelta(seconds=5),
        workspace_id="w",
        records=3,
        names={"source": "s"},
        url="u",
    )

    def again(self, status: JobStatus = RUNNING, *, minutes: float = 5, **values: Any) -> JobEvent:
        later = timedelta(minutes=minutes)
        given: dict[str, Any] = {"connection_id": "c", "started_at": NOON + later, "observed_at": NOON + later}
        return event(1, status, **(given | values))

    @pytest.mark.parametrize("status", [RUNNING, SUCCEEDED, FAILED])
    async def test_i2_a_job_created_at_another_time_is_another_job(self, store: EventStore, status: JobStatus) -> None:
        await store.append([self.OLD])
        assert (await store.append([self.again(status)])).verdicts == [Verdict.REUSED]
        page = await store.read(0)
        assert [(each.status, each.previous_status) for each in page.events] == [(SUCCEEDED, None), (status, None)]
        assert (await store.states([self.OLD.ref]))[self.OLD.ref] == page.events[-1]

    async def test_i2_a_job_of_another_connection_is_another_job(self, store: EventStore) -> None:
        await store.append([self.OLD])
        assert (await store.append([self.again(connection_id="d", started_at=NOON)])).verdicts == [Verdict.REUSED]

    async def test_i3_nothing_of_the_job_before_is_kept_for_it(self, store: EventStore) -> None:
        await store.append([self.OLD])
        await store.append([self.again()])
        (state,) = (await store.states([self.OLD.ref])).values()
        assert (state.workspace_id, state.records, state.names, state.url, state.finished_at) == (None,) * 2 + (
            {},
            None,
            None,
        )
        assert await store.jobs() == [state]

    async def test_i2_each_of_the_two_ends_once(self, store: EventStore) -> None:
        ends = [self.OLD, self.again(), self.again(FAILED), self.again(FAILED), self.again(SUCCEEDED)]
        assert (await store.append(ends)).verdicts == [
            Verdict.NEW,
            Verdict.REUSED,
            Verdict.NEW,
            Verdict.REPEAT,
            Verdict.CONTRADICTION,
        ]

    async def test_i3_an_answer_about_the_job_before_that_arrives_late_is_dropped(self, store: EventStore) -> None:
        await store.append([self.again()])
        assert (await store.append([self.OLD, self.again(minutes=0)])).verdicts == [Verdict.REPEAT] * 2
        assert [each.status for each in (await store.states([self.OLD.ref])).values()] == [RUNNING]

    async def test_an_older_copy_of_airbyte_is_believed_after_a_while(self, store: EventStore) -> None:
        await store.append([self.again()])
        assert (await store.append([self.again(started_at=NOON, observed_at=NOON + timedelta(hours=1))])).verdicts == [
            Verdict.REUSED
        ]

    @pytest.mark.parametrize(
        "same",
        [
            {"started_at": None},
            {"connection_id": None},
            {"connection_id": "C"},
            {"started_at": NOON + timedelta(milliseconds=900)},
        ],
    )
    async def test_i3_what_is_unknown_or_cut_makes_no_other_job(self, store: EventStore, same: dict[str, Any]) -> None:
        await store.append([self.OLD])
        assert (await store.append([self.again(SUCCEEDED, **({"started_at": NOON} | same))])).verdicts == [
            Verdict.REPEAT
        ]

    async def test_i3_it_is_not_annotated_with_what_is_told_of_the_job_before(self, store: EventStore) -> None:
        await store.append([self.OLD, self.again(SUCCEEDED)])
        await store.annotate([self.OLD])
        (state,) = (await store.states([self.OLD.ref])).values()
        assert (state.url, state.names, state.records) == (None, {}, None)

    async def test_it_is_watched_again(self, store: EventStore) -> None:
        await store.append([self.OLD, self.again()])
        await store.watch([self.OLD.ref], 60)
        assert list(await store.watched("default")) == [1]
        await store.append([self.again(FAILED)])
        assert await store.watched("default") == {}


class TestAnnotate:
    async def test_fills_the_state_without_an_event(self, store: EventStore) -> None:
        await store.append([event(1, FAILED, records=3)])
        error = JobError(message="why")
        await store.annotate([event(1, FAILED, error=error, records=9, names={"source": "s"}), event(2, FAILED)])
        state = (await store.states([JobRef("default", 1)]))[JobRef("default", 1)]
        assert (state.error, state.records, state.names) == (error, 3, {"source": "s"})
        assert state.cursor is not None
        assert state.cursor.sequence == await store.head() == 1
        assert await store.states([JobRef("default", 2)]) == {}

    async def test_another_status_changes_nothing(self, store: EventStore) -> None:
        await store.append([event(1, SUCCEEDED)])
        before = await store.states([JobRef("default", 1)])
        await store.annotate([event(1, FAILED, error=JobError(message="why"))])
        assert await store.states([JobRef("default", 1)]) == before

    async def test_a_waiting_task_is_kept_whatever_the_status(self, store: EventStore) -> None:
        await store.append([event(1)])
        await store.annotate([event(1, FAILED, task_url="https://a.example.com")])
        await store.append([event(1, SUCCEEDED)])
        await store.annotate([event(1, task_url="https://b.example.com")])
        (state,) = (await store.states([JobRef("default", 1)])).values()
        assert (state.status, state.task_url) == (SUCCEEDED, "https://a.example.com")

    async def test_tasks_that_received_the_completion_are_added(self, store: EventStore) -> None:
        await store.append([event(1), event(2)])
        late, early, again = (
            TaskReceipt(received_at=NOON + timedelta(seconds=n), waiting_since=NOON, task_url=f"https://a/{task}")
            for n, task in ((5, "late"), (1, "early"), (9, "early"))
        )
        await store.annotate([event(1, receipts=(early,))])
        await store.append([event(1, SUCCEEDED)])
        for reports in ([event(1, SUCCEEDED, receipts=(late,))], [event(1, SUCCEEDED, receipts=(again, early))]):
            await store.annotate([*reports, event(2, SUCCEEDED, receipts=(late,))])
        one, other = (JobRef("default", job_id) for job_id in (1, 2))
        states = await store.states([one, other])
        assert states[one].receipts == (early, late)
        assert states[other].receipts == ()

    async def test_does_not_undo_an_end(self, store: EventStore) -> None:
        await store.append([event(1)])
        await store.annotate([event(1, url="u")])
        await store.append([event(1, SUCCEEDED)])
        await store.annotate([event(1, url="v")])
        (state,) = (await store.states([JobRef("default", 1)])).values()
        assert (state.status, state.url) == (SUCCEEDED, "u")


class TestRead:
    @pytest.fixture
    async def log(self, store: EventStore) -> EventStore:
        for job_id in range(1, 11):
            await store.append([event(job_id, connection_id="odd" if job_id % 2 else "even")])
        await store.append([event(1, SUCCEEDED), event(2, FAILED), event(3, SUCCEEDED, instance="other")])
        return store

    async def test_pages_leave_nothing_out(self, log: EventStore) -> None:
        position, seen = 0, []
        while page := (await log.read(position, limit=4)).events:
            assert len(page) <= 4
            seen += sequences(page)
            position = seen[-1]
        assert seen == list(range(1, 14))

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            (one_of(job_ids={1, 99}), [1, 11]),
            (one_of(instances={"other"}), [13]),
            (one_of(connection_ids={"even"}, job_ids={2, 3, 4}), [2, 4, 12]),
            (one_of(statuses={SUCCEEDED}), [11, 13]),
            (one_of(terminal=True), [11, 12, 13]),
            (one_of(terminal=False), list(range(1, 11))),
            (one_of(terminal=True, statuses={FAILED, RUNNING}), [12]),
            (one_of(terminal=True, statuses={RUNNING}), []),
            (one_of(instances={"'; DROP TABLE events; --"}), []),
        ],
    )
    async def test_filters_as_the_filter_says(self, log: EventStore, wanted: EventFilter, found: list[int]) -> None:
        page = await log.read(0, wanted=wanted)
        assert sequences(page.events) == found
        assert page.position == 13
        everything = (await log.read(0)).events
        assert sequences(each for each in everything if wanted.matches(each)) == found

    async def test_a_full_page_ends_at_its_last_event_and_another_at_the_head(self, log: EventStore) -> None:
        wanted = one_of(job_ids={1, 2})
        positions = [(await log.read(0, limit=limit, wanted=wanted)).position for limit in (1, 2, 3, 4, 5)]
        assert positions == [1, 2, 11, 12, 13]
        assert (await log.read(13)).position == 13

    @pytest.mark.parametrize("after", [14, 2**62, -1])
    async def test_beyond_the_head_is_another_log(self, log: EventStore, after: int) -> None:
        with pytest.raises(CursorExpired):
            await log.read(after)


async def test_i5_a_cursor_behind_which_events_are_gone_expires(kind: Kind, tmp_path: Path) -> None:
    """The memory store forgets by itself."""
    async with kind.open(tmp_path) as store:
        await store.append([event(job_id) for job_id in range(1, 1_006)])
    if kind.prune is not None:
        kind.prune(tmp_path, 5)
        store = kind.open(tmp_path)
    async with store:
        for after in (0, 4):
            with pytest.raises(CursorExpired, match="5"):
                await store.read(after)
        assert sequences((await store.read(5, limit=1)).events) == [6]
        assert sequences(await store.history(JobRef("default", 6))) == [6]
        assert await store.history(JobRef("default", 5)) == []
        assert (await store.append([event(2_000)])).verdicts == [Verdict.NEW]
        assert await store.head() == 1_006


class TestChanged:
    async def test_waits_for_the_next_event(self, store: EventStore) -> None:
        await store.append([event(1)])
        woken = []

        async def wait(after: int) -> None:
            await store.changed(after)
            woken.append(after)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, 0)
                tasks.start_soon(wait, 1)
                tasks.start_soon(wait, 1)
                await anyio.wait_all_tasks_blocked()
                assert woken == [0]
                await store.append([event(1)])
                await anyio.wait_all_tasks_blocked()
                assert woken == [0]
                await store.append([event(1, SUCCEEDED)])
        assert woken == [0, 1, 1]

    async def test_whoever_leaves_does_not_disturb_others(self, store: EventStore) -> None:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.changed, 0)
                with anyio.move_on_after(0):
                    await store.changed(0)
                await store.append([event(1)])


class TestJobs:
    async def test_latest_states_newest_first_and_by_page(self, store: EventStore) -> None:
        await store.append([event(job_id) for job_id in range(1, 8)])
        await store.append([event(3, SUCCEEDED), event(1, FAILED)])
        await store.annotate([event(2, url="u")])
        states = await store.jobs()
        assert [state.ref.job_id for state in states] == [1, 3, 7, 6, 5, 4, 2]
        first = await store.jobs(limit=3)
        assert first == states[:3]
        assert await store.jobs(limit=10, before=sequences(first)[-1]) == states[3:]
        assert await store.jobs(before=0) == []
        assert [s.ref.job_id for s in await store.jobs(wanted=one_of(terminal=False), limit=2, before=6)] == [5, 4]
        assert [s.ref.job_id for s in await store.jobs(wanted=one_of(terminal=True))] == [1, 3]

    async def test_history_is_one_jobs_oldest_first(self, store: EventStore) -> None:
        await store.append([event(1), event(2), event(1, SUCCEEDED), event(1, instance="other")])
        history = await store.history(JobRef("default", 1))
        assert sequences(history) == [1, 3]
        assert await store.history(JobRef("default", 99)) == []

    async def test_states_of_those_that_are_known(self, store: EventStore) -> None:
        await store.append([event(1)])
        known, unknown = JobRef("default", 1), JobRef("other", 1)
        assert set(await store.states([known, unknown])) == {known}
        assert await store.states([]) == {}


class TestInbox:
    async def test_the_same_body_is_kept_once(self, store: EventStore) -> None:
        receipts = [
            await receipt_of(store, body, instance=instance)
            for instance, body in [("default", b"a"), ("default", b"b"), ("default", b"a"), ("other", b"a")]
        ]
        assert [receipt.duplicate for receipt in receipts] == [False, False, True, False]
        assert receipts[2].id == receipts[0].id
        assert len({receipt.id for receipt in receipts}) == 3

    async def test_the_same_body_at_once_is_kept_once(self, store: EventStore) -> None:
        ids: set[int] = set()

        async def receive() -> None:
            ids.add(await received(store, b"same"))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(receive)
        assert len(ids) == len(await store.notifications()) == 1

    @pytest.mark.parametrize("second", [0, 1, 59])
    async def test_what_names_no_job_is_news_again_after_a_minute(self, store: EventStore, second: int) -> None:
        """A connection is disabled again in the same words: that has to be forwarded. A doubled request has not."""
        first = NOON + timedelta(seconds=second)

        async def disabled(seconds: float, instance: str = "default") -> Receipt:
            return await receipt_of(
                store,
                b"disabled",
                instance=instance,
                kind="disabled",
                job_id=None,
                outcome=Outcome.IGNORED,
                received_at=first + timedelta(seconds=seconds),
                targets=["slack"],
            )

        original = await disabled(0)
        assert not original.duplicate
        assert [await disabled(seconds) for seconds in (0, 2, 59.9)] == [Receipt(id=original.id, duplicate=True)] * 3
        assert not (await disabled(2, "other")).duplicate
        again = await disabled(60)
        assert not again.duplicate
        assert await disabled(119.9) == Receipt(id=again.id, duplicate=True)
        assert not (await disabled(24 * 3600)).duplicate
        assert len([each for each in await store.deliveries() if each.notification.instance == "default"]) == 3
        # What is of a job's end happens once.
        named = [await received(store, b"ended", received_at=first + timedelta(days=day)) for day in range(2)]
        assert named[0] == named[1]

    async def test_keeps_all_of_it(self, store: EventStore) -> None:
        body = bytes(range(256))
        id_ = await received(store, body, instance="other", kind="rejected", job_id=None, outcome=Outcome.REJECTED)
        (stored,) = await store.notifications()
        assert (stored.id, stored.instance, stored.received_at, stored.kind) == (id_, "other", NOON, "rejected")
        assert (stored.job_id, stored.body, stored.outcome, stored.settled_at) == (None, body, Outcome.REJECTED, None)

    async def test_what_is_pending_is_settled_and_can_be_queued_again(self, store: EventStore) -> None:
        first, second = await received(store, b"1"), await received(store, b"2")
        await received(store, b"3", outcome=Outcome.IGNORED)
        await received(store, b"4", instance="other")
        assert [each.id for each in await store.pending("default")] == [first, second]
        assert [each.id for each in await store.pending("default", limit=1)] == [first]
        assert [each.id for each in await store.pending("default", after=first)] == [second]
        later = NOON + timedelta(seconds=1)
        await store.settle({first: Outcome.CONFIRMED, second: Outcome.UNKNOWN_JOB, 999: Outcome.CONFIRMED}, later)
        assert await store.pending("default") == []
        settled = {each.id: (each.outcome, each.settled_at) for each in await store.notifications()}
        assert settled[first] == (Outcome.CONFIRMED, later)
        await store.settle({first: Outcome.PENDING}, later)
        (again,) = await store.pending("default")
        assert (again.id, again.settled_at, again.body) == (first, None, b"1")
        await store.settle({}, later)

    async def test_large_ones_that_wait_are_told_a_few_at_a_time(self, store: EventStore) -> None:
        ids = [await received(store, bytes([number]) * (PENDING_BYTES // 32)) for number in range(34)]
        told = [[each.id for each in await store.pending("default", after=after)] for after in (0, ids[31])]
        assert told == [ids[:32], ids[32:]]
        assert [each.id for each in await store.pending("default", limit=3)] == ids[:3]

    async def test_is_paged_newest_first(self, store: EventStore) -> None:
        ids = [await received(store, str(number).encode()) for number in range(5)]
        first = await store.notifications(limit=2)
        rest = await store.notifications(before=first[-1].id)
        assert [each.id for each in [*first, *rest]] == ids[::-1]

    async def test_announcements_are_those_of_a_jobs_end(self, store: EventStore) -> None:
        first = await received(store, b"1", kind="failure", job_id=1)
        second = await received(store, b"2", kind="success", job_id=1)
        await received(store, b"3", kind="queued", job_id=1, outcome=Outcome.IGNORED)
        await received(store, b"4", kind="test", job_id=10, outcome=Outcome.IGNORED)
        await received(store, b"5", job_id=1, instance="other")
        refs = [JobRef("default", job_id) for job_id in (1, 2, 10)]
        found = await store.announcements(dict.fromkeys(refs))
        assert {ref: [each.id for each in some] for ref, some in found.items()} == {refs[0]: [first, second]}
        assert await store.announcements({}) == {}

    async def test_of_many_announcements_those_around_a_time_are_told(self, store: EventStore) -> None:
        before = [
            await received(store, b"before %d" % number, job_id=1, received_at=NOON - timedelta(seconds=60 - number))
            for number in range(20)
        ]
        true = await received(store, b"true", job_id=1, received_at=NOON)
        after = [
            await received(store, b"after %d" % number, job_id=1, received_at=NOON + timedelta(seconds=number + 1))
            for number in range(20)
        ]
        ref, few = JobRef("default", 1), ANNOUNCEMENTS
        (told,) = (await store.announcements({ref: NOON, JobRef("default", 2): NOON})).values()
        assert [each.id for each in told] == [*before[:few], true, *after[: few - 1], *after[-few:]]
        (told,) = (await store.announcements({ref: None})).values()
        assert [each.id for each in told] == [*before[:few], *after[-few:]]


async def test_values_are_remembered(store: EventStore) -> None:
    assert await store.recall("x") is None
    await store.remember("x", "1")
    await store.remember("x", "☃")
    assert await store.recall("x") == "☃"
    await store.check()


class TestCancelled:
    @staticmethod
    async def after_steps(steps: int, operation: Callable[[], Awaitable[object]]) -> None:
        async def run() -> None:
            await operation()

        async with in_background(run):
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()

    @pytest.mark.parametrize("steps", range(5))
    async def test_an_append_happens_whole_or_not_at_all(self, store: EventStore, steps: int) -> None:
        await self.after_steps(steps, lambda: store.append([event(1), event(2), event(1, SUCCEEDED)]))
        await store.check()
        assert (await store.append([event(3)])).verdicts == [Verdict.NEW]
        # What was begun may be finished only now: a read sees all of it, or nothing yet.
        told = [each.ref.job_id for each in (await store.read(0)).events]
        assert told in ([3], [1, 2, 1, 3], [3, 1, 2, 1])

    @pytest.mark.parametrize("steps", range(5))
    async def test_i4_an_append_that_nobody_waits_for_wakes_readers(self, store: EventStore, steps: int) -> None:
        await self.after_steps(steps, lambda: store.append([event(1)]))
        if await store.head():
            with anyio.fail_after(30):
                await store.changed(0)

    @pytest.mark.parametrize("steps", range(4))
    async def test_every_operation_leaves_the_store_usable(self, store: EventStore, steps: int) -> None:
        id_ = await received(store, b"first")
        await store.append([event(1)])
        operations: list[Callable[[], Awaitable[object]]] = [
            lambda: store.annotate([event(1, url="u")]),
            store.head,
            lambda: store.read(0),
            lambda: store.changed(1),
            lambda: store.states([JobRef("default", 1)]),
            store.jobs,
            lambda: store.history(JobRef("default", 1)),
            lambda: received(store, b"second"),
            lambda: store.pending("default"),
            lambda: store.settle({id_: Outcome.CONFIRMED}, NOON),
            store.notifications,
            lambda: store.announcements({JobRef("default", 1): NOON}),
            lambda: store.recall("x"),
            lambda: store.remember("x", "1"),
            store.check,
        ]
        with anyio.fail_after(30):
            for operation in operations:
                await self.after_steps(steps, operation)
            assert await store.head() == 1
            assert await store.recall("x") in (None, "1")
            assert len(await store.notifications()) in (1, 2)

    async def test_whoever_waits_beside_is_served(self, store: EventStore) -> None:
        ids: list[int] = []

        async def receive(number: int) -> None:
            ids.append(await received(store, str(number).encode()))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(receive, number)
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await received(store, b"cancelled")
        assert len(set(ids)) == 20

    async def test_leaving_a_cancelled_scope_closes_the_store(self, kind: Kind, tmp_path: Path) -> None:
        for _ in range(2):
            with anyio.CancelScope() as scope:
                async with kind.open(tmp_path) as store:
                    await store.append([event(1)])
                    scope.cancel()
                    await store.append([event(2)])
            assert scope.cancelled_caught


async def test_i1_a_store_that_is_opened_again_has_everything(kind: Kind, tmp_path: Path) -> None:
    if not kind.durable:
        pytest.skip("it ends with the process")
    async with kind.open(tmp_path) as store:
        await store.append([event(1), event(2, FAILED, error=JobError(message="why"))])
        await received(store, b"body")
        await store.remember("x", "1")
        log, inbox, epoch = await store.read(0), await store.notifications(), store.epoch
    async with kind.open(tmp_path) as store:
        assert (await store.read(0), await store.notifications(), store.epoch) == (log, inbox, epoch)
        assert await store.recall("x") == "1"
        assert (await store.append([event(2, SUCCEEDED)])).verdicts == [Verdict.CONTRADICTION]
        with anyio.fail_after(30):
            await store.changed(0)
        assert (await receipt_of(store, b"body")).duplicate


async def test_every_log_has_an_identity_of_its_own(kind: Kind, tmp_path: Path) -> None:
    epochs = []
    for name in "ab":
        (tmp_path / name).mkdir()
        async with kind.open(tmp_path / name) as store:
            epochs.append(store.epoch)
    assert epochs[0] != epochs[1]

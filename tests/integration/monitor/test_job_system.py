"""What follows jobs needs no Airbyte: here it follows a job system of ten lines, over the protocol alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.errors import UnknownJob
from airbyte_events.events import ANY_JOB, Identity, JobError, JobRef, JobStatus, Origin
from airbyte_events.hub.hub import Hub
from airbyte_events.jobs import Announcement, Job, JobPage, JobSystem, Refresh
from airbyte_events.listener.inbox import Inbox
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.monitor.poller import Poller, Ticks
from airbyte_events.store.memory.store import MemoryStore
from airbyte_events.store.records import Outcome
from support.stored import receipt_of

pytestmark = pytest.mark.anyio

QUICK = Ticks(unproven=0.02, proven=0.02, idle=0.02)


class Printer:
    """Prints, one document a job."""

    url = "ipp://printer"
    backing_off = 0.0
    failing_for = 0.0

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.lists = 0

    async def list_changed(
        self, *, since: datetime, connection_id: str | None = None, job_types: Collection[str] = ()
    ) -> AsyncIterator[JobPage]:
        self.lists += 1
        for job in list(self.jobs.values()):
            if connection_id in (None, job.connection_id) and (job.updated_at or utcnow()) >= since:
                yield JobPage(jobs=(job,), served_at=utcnow())

    async def find_job(self, job_id: int, *, once: bool = False) -> Job | None:
        return self.jobs.get(job_id)

    async def newest_jobs(self, connection_id: str, job_type: str | None = None) -> list[Job]:
        return [job for job in reversed(self.jobs.values()) if job.connection_id == connection_id]

    async def workspace_of(self, connection_id: str) -> str | None:
        return None

    async def find_connection(self, name: str, workspace_id: str | None = None) -> str:
        return name

    async def create_job(self, connection_id: str, job_type: str = "sync", refresh: Refresh | None = None) -> Job:
        job = Job(
            job_id=len(self.jobs) + 1,
            status=JobStatus.RUNNING,
            job_type=job_type,
            connection_id=connection_id,
            started_at=utcnow(),
        )
        return self.jobs.setdefault(job.job_id, job)

    async def cancel_job(self, job_id: int, identity: Identity = ANY_JOB) -> Job:
        if not identity.fits(self.jobs[job_id]):
            raise UnknownJob(f"document {job_id} is another one now")
        return self.end(job_id, JobStatus.CANCELLED)

    def read_notification(self, body: bytes) -> Announcement:
        job_id, status, message = body.decode().split(maxsplit=2)
        return Announcement(job_id=int(job_id), expected_status=JobStatus(status), error=JobError(message=message))

    def end(self, job_id: int, status: JobStatus) -> Job:
        self.jobs[job_id] = replace(self.jobs[job_id], status=status, updated_at=utcnow())
        return self.jobs[job_id]


async def test_the_poller_finds_what_has_changed() -> None:
    printer, store = Printer(), MemoryStore()
    system: JobSystem = printer
    async with store, anyio.create_task_group() as tasks:
        monitor = Monitor("office", system, store)
        job = await system.create_job("tray-1")
        tasks.start_soon(Poller(monitor, QUICK).run)
        with anyio.fail_after(30):
            await store.changed(0)
            printer.end(job.job_id, JobStatus.SUCCEEDED)
            await store.changed(1)
        history = await store.history(JobRef("office", job.job_id))
        tasks.cancel_scope.cancel()
    assert [event.status for event in history] == [JobStatus.RUNNING, JobStatus.SUCCEEDED]
    assert {event.connection_id for event in history} == {"tray-1"}


async def test_a_webhook_is_confirmed_and_says_why() -> None:
    printer, store = Printer(), MemoryStore()
    async with store:
        monitor = Monitor("office", printer, store)
        job = await printer.create_job("tray-1")
        printer.end(job.job_id, JobStatus.FAILED)
        receipt = await receipt_of(
            store,
            b"1 failed out of paper",
            instance="office",
            kind="failure",
            job_id=job.job_id,
            received_at=datetime.now(UTC),
        )
        await Inbox(monitor, store).confirm_pending()
        (state,) = (await store.states([JobRef("office", job.job_id)])).values()
        (notification,) = await store.notifications()
    assert (notification.id, notification.outcome) == (receipt.id, Outcome.CONFIRMED)
    assert (state.origin, state.error) == (Origin.WEBHOOK, JobError(message="out of paper"))
    assert printer.lists == 0


class SlowPrinter(Printer):
    """Returns a job only when the second page of a list has long been there."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.listed = anyio.Event(), anyio.Event()

    async def list_changed(
        self, *, since: datetime, connection_id: str | None = None, job_types: Collection[str] = ()
    ) -> AsyncIterator[JobPage]:
        pages = 0
        async for page in super().list_changed(since=since):
            pages += 1
            if pages == 2:
                self.listed.set()
            yield page

    async def find_job(self, job_id: int, *, once: bool = False) -> Job | None:
        self.asked.set()
        await self.listed.wait()
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        return await super().find_job(job_id)


async def test_webhooks_precede_the_further_pages_of_a_list() -> None:
    printer, store = SlowPrinter(), MemoryStore()
    async with store, anyio.create_task_group() as tasks:
        monitor = Monitor("office", printer, store)
        for tray in ("tray-1", "tray-2", "tray-3"):
            printer.end((await printer.create_job(tray)).job_id, JobStatus.SUCCEEDED)
        await receipt_of(store, b"3 succeeded printed", instance="office", job_id=3, received_at=datetime.now(UTC))
        tasks.start_soon(Inbox(monitor, store).run)
        await printer.asked.wait()
        with anyio.fail_after(30):
            await monitor.poll()
        page = await store.read(0)
        tasks.cancel_scope.cancel()
    assert [event.ref.job_id for event in page.events] == [1, 3, 2]


async def test_a_hub_waits_for_its_jobs() -> None:
    printer = Printer()
    async with Hub(printer, ticks=QUICK) as hub:
        first, second = await printer.create_job("tray-1"), await printer.create_job("tray-2")
        ended: dict[int, JobStatus] = {}

        async def wait(job_id: int) -> None:
            ended[job_id] = (await hub.wait(job_id)).status

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, first.job_id)
                tasks.start_soon(wait, second.job_id)
                # Time for a few polls.
                await anyio.sleep(0.1)
                assert not ended
                printer.end(first.job_id, JobStatus.SUCCEEDED)
                await printer.cancel_job(second.job_id, Identity("tray-2", second.started_at))
        with pytest.raises(UnknownJob):
            await hub.wait(17)
        with pytest.raises(UnknownJob):
            await printer.cancel_job(1, Identity("tray-1", utcnow() + timedelta(days=1)))
    assert ended == {first.job_id: JobStatus.SUCCEEDED, second.job_id: JobStatus.CANCELLED}

"""How many statements a webhook costs on PostgreSQL: all that clients send, BEGIN included, by the server's log."""

from __future__ import annotations

import re

import anyio
import httpx
import psycopg
import pytest

from airbyte_events._utils.times import utcnow
from airbyte_events.bus.bus import EventBus
from airbyte_events.listener.inbox import Inbox
from airbyte_events.monitor.monitor import Monitor
from airbyte_events.store.postgres.store import PostgresStore
from airbyte_events.store.records import Outcome
from postgres_server import PostgresServer
from support.airbyte import Airbyte, client_of
from support.events import webhook_body
from support.stored import event, receipt_of
from support.waiting import until

pytestmark = pytest.mark.anyio

WEBHOOKS = 10

POLL = re.compile(r"SELECT epoch, head, .*system_identifier.* FROM \S+\.log, \S+\.schema_version")
"""What the connection that listens reads each second."""


class Log:
    """The statements in a server's log."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._skipped = len(server.log)

    def statements(self) -> tuple[list[str], list[str]]:
        """Those that do the work, and those of the connection that listens for notifications."""
        text = self._server.log[self._skipped :]
        # The last line may not be complete.
        found = re.findall(r"\[(\d+)\] LOG:  (?:statement|execute [^:]*): (.*)\n", text)
        listening = {process for process, statement in found if statement.startswith("LISTEN")}
        working = [statement for process, statement in found if process not in listening]
        return working, [statement for process, statement in found if process in listening]


@pytest.fixture
def log(server: PostgresServer, database: str) -> Log:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for setting in ("log_statement = 'all'", "log_min_messages = 'log'"):
            connection.execute(f"ALTER DATABASE {database} SET {setting}")
    return Log(server)


async def test_a_confirmed_webhook_costs_three_statements(
    log: Log, url: str, airbyte: Airbyte, http: httpx.AsyncClient
) -> None:
    """From its receipt until its event is published: store it, take it from the inbox, append and settle."""
    async with PostgresStore(url) as store, EventBus(store) as bus, anyio.create_task_group() as tasks:
        lease = await store.acquire("sources/default", "here", 60)
        monitor = Monitor("default", client_of(http, airbyte.url), store, lease=lease)
        tasks.start_soon(Inbox(monitor, store).run)
        # What all of them ask when they begin is not counted. Nothing tells when the inbox has.
        await until(lambda: any(map(POLL.fullmatch, log.statements()[1])))
        await anyio.sleep(0.5)
        working, listening = map(len, log.statements())
        with bus.subscribe() as events, anyio.fail_after(30):
            for job_id in range(1, WEBHOOKS + 1):
                airbyte.put(job_id, "succeeded")
                await receipt_of(store, webhook_body(job_id), job_id=job_id, received_at=utcnow())
                published = await anext(events)
                assert (published.ref.job_id, published.names["connection"]) == (job_id, "orders")
        done, listened = (some[before:] for some, before in zip(log.statements(), (working, listening), strict=True))
        assert {each.outcome for each in await store.notifications()} == {Outcome.CONFIRMED}
        # Those who read the log from it, not from the bus, find the same.
        assert [each.ref.job_id for each in (await store.read(0)).events] == list(range(1, WEBHOOKS + 1))
        tasks.cancel_scope.cancel()
    assert [sum(word in each for each in done) for word in ("receive_1", "n.received_at", "append_1")] == [WEBHOOKS] * 3
    assert len(done) == 3 * WEBHOOKS
    # What it asks each second does not depend on webhooks.
    assert not [each for each in listened if not POLL.fullmatch(each)]


async def test_an_idle_listener_costs_a_statement_a_second(log: Log, url: str) -> None:
    """What listens polls the log by one statement, and subscribers that wait for events ask nothing."""
    async with PostgresStore(url) as store, EventBus(store) as bus:
        await store.append([event(1)])
        with bus.subscribe():
            await until(lambda: any(map(POLL.fullmatch, log.statements()[1])))
            working, listening = map(len, log.statements())
            await until(lambda: len(log.statements()[1]) >= listening + 3)
            done, listened = (
                some[before:] for some, before in zip(log.statements(), (working, listening), strict=True)
            )
    assert not done
    assert all(map(POLL.fullmatch, listened))


async def test_a_renewed_lease_costs_a_statement(log: Log, store: PostgresStore) -> None:
    await until(lambda: any(map(POLL.fullmatch, log.statements()[1])))
    lease = await store.acquire("sources/default", "here", 60)
    before = len(log.statements()[0])
    assert await store.acquire("sources/default", "here", 60) == lease
    assert [each.split(" VALUES")[0] for each in log.statements()[0][before:]] == [
        'INSERT INTO "airbyte_events".leases AS l'
    ]


async def test_a_poll_of_airbyte_reads_nothing_that_it_has_stored(
    log: Log, store: PostgresStore, airbyte: Airbyte, http: httpx.AsyncClient
) -> None:
    """If no job has changed, it costs a statement, for where the next one begins."""
    await until(lambda: any(map(POLL.fullmatch, log.statements()[1])))
    lease = await store.acquire("sources/default", "here", 60)
    monitor = Monitor("default", client_of(http, airbyte.url), store, lease=lease)
    for job_id, status in enumerate(("succeeded", "running"), 1):
        airbyte.put(job_id, status)
    assert await monitor.poll() == {1, 2}
    before = len(log.statements()[0])
    assert await monitor.poll() == {1, 2}
    (mark,) = log.statements()[0][before:]
    assert "INSERT INTO" in mark
    assert "meta" in mark
    airbyte.put(2, "failed")
    assert await monitor.poll() == {1, 2}
    assert [each.status for each in (await store.read(0)).events if each.ref.job_id == 2] == ["running", "failed"]

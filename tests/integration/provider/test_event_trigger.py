"""The assets' trigger, run as the triggerer runs it: by Airflow's own shared streams and state accessors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from airbyte_events.events import JobError
from airbyte_events.simulator import Fault
from airbyte_events_provider.triggers.airbyte import AirbyteSyncEventTrigger
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub
from support.airflow_stage import AirflowStage
from support.listener import Running

shared_stream = pytest.importorskip("airflow.triggers.shared_stream", reason="Airflow before 3.3")

from airflow.sdk import Asset  # noqa: E402
from airflow.sdk.execution_time import comms, task_runner  # noqa: E402
from airflow.sdk.execution_time.context import AssetStateStoreAccessors  # noqa: E402

pytestmark = pytest.mark.anyio


class Supervisor:
    """What keeps assets' state, at the other end of the triggerer's channel."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], Any] = {}
        self.away = False

    async def asend(self, message: Any) -> Any:
        if self.away:
            raise ConnectionError("the supervisor is away")
        if isinstance(message, comms.GetAssetStateStoreByName):
            value = self.values.get((message.name, message.key))
            return None if value is None else comms.AssetStateStoreResult(value=json.loads(value))
        assert isinstance(message, comms.SetAssetStateStoreByName)
        self.values[message.name, message.key] = json.dumps(message.value)
        return None


class Triggerer:
    """Runs event triggers as Airflow's does, but stores events only when told to."""

    def __init__(self, **options: Any) -> None:
        self.streams = shared_stream.SharedStreamManager(**options)
        self.fired: list[tuple[str, dict[str, Any]]] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.storing = True
        self.unstored: list[int] = []
        self._ids: dict[str, int] = {}

    def start(self, asset: str, **arguments: Any) -> None:
        """Begin to watch for the asset of that name, by a trigger made from what Airflow stores."""
        _, kwargs = AirbyteSyncEventTrigger(**arguments).serialize()
        trigger = AirbyteSyncEventTrigger(**json.loads(json.dumps(kwargs)))
        trigger.asset_state_store = AssetStateStoreAccessors(inlets=[Asset(name=asset)])
        self.tasks[asset] = asyncio.get_running_loop().create_task(self._run(asset, trigger))

    async def _run(self, asset: str, trigger: AirbyteSyncEventTrigger) -> None:
        number = self._ids.setdefault(asset, len(self._ids) + 1)
        key = trigger.shared_stream_key()
        try:
            stream = self.streams.subscribe(trigger_id=number, trigger=trigger, key=key)
            async for event in trigger.filter_shared_stream(stream):
                seq = self.streams.bind_pending_event(trigger_id=number, key=key)
                assert seq is not None
                self.fired.append((asset, json.loads(json.dumps(event.payload))))
                self.unstored.append(seq)
                if self.storing:
                    self.store()
        finally:
            await self.streams.unsubscribe(number, key)
            await trigger.cleanup()

    def store(self) -> None:
        """What has fired is in Airflow's database."""
        seqs, self.unstored = self.unstored, []
        asyncio.get_running_loop().call_soon(self.streams.confirm_persisted, seqs)

    async def stop(self, *assets: str) -> None:
        for asset in assets or list(self.tasks):
            task = self.tasks.pop(asset)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def jobs(self, asset: str = "orders") -> list[int]:
        return [payload["job_id"] for name, payload in self.fired if name == asset]


class Scene:
    """Triggerers that come and go, one state that stays."""

    def __init__(self, stage: AirflowStage, supervisor: Supervisor) -> None:
        self.stage = stage
        self.supervisor = supervisor

    @contextlib.asynccontextmanager
    async def triggerer(self, *assets: str, settled: int | None = None, **options: Any) -> AsyncIterator[Triggerer]:
        """One that watches for these assets: ``orders`` by the stage's connection."""
        triggerer = Triggerer(**options)
        for asset in assets:
            triggerer.start(asset, **({"connection_ids": self.stage.connection_id} if asset == "orders" else {}))
        if assets:
            await self.watched(len(assets))
        try:
            yield triggerer
        finally:
            await triggerer.stop()
            # A triggerer's hub goes with it.
            await self.stage.until(lambda: not self.stage.hubs)

    async def watched(self, count: int = 1) -> None:
        """Returns when so many watch, and know what had ended before."""
        async with shared_hub(HubKey("airbyte_default")) as shared:
            await self.stage.until(lambda: shared.hub.followers == count)
            if self.stage.listened:
                await self.joined(shared.hub)
        await self.stage.until(lambda: len(self.supervisor.values) >= count)

    async def joined(self, hub: Any) -> None:
        """Returns when the hub follows the feed, and has made the look that is due then."""
        await self.stage.until(lambda: hub.following)
        await hub.poll()

    @contextlib.asynccontextmanager
    async def reborn(self, listener: Running) -> AsyncIterator[None]:
        """Another listener where one was stopped, with an empty store."""
        port = int(listener.url.rpartition(":")[2])

        def refuses() -> bool:
            with contextlib.closing(socket.socket()) as probe:
                return probe.connect_ex(("127.0.0.1", port)) != 0

        await self.stage.until(refuses)
        async with self.stage.listener(port=port):
            yield

    async def saved(self, *job_ids: int) -> None:
        """Returns when the kept place has these jobs."""
        await self.stage.until(
            lambda: all(
                any(job_id in json.loads(each)["told"] for each in self.supervisor.values.values())
                for job_id in job_ids
            )
        )


@pytest.fixture
def scene(stage: AirflowStage, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__HUB_LINGER", "0")
    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    return Scene(stage, supervisor)


async def test_a_success_fires_whoever_started_it(stage: AirflowStage, scene: Scene, source: str) -> None:
    async with scene.triggerer("orders") as triggerer:
        job, other = stage.start(), stage.start_elsewhere()
        stage.end(other)
        stage.end(job, records=7, bytes=70)
        await stage.until(lambda: bool(triggerer.fired))
        ((asset, payload),) = triggerer.fired
        assert asset == "orders"
        assert (payload["job_id"], payload["status"]) == (job.id, "succeeded")
        assert (payload["connection_id"], payload["job_type"]) == (stage.connection_id, "sync")
        assert (payload["records"], payload["bytes"]) == (7, 70)
        # A listener that has just started looks once, too.
        assert payload["origin"] in (("webhook", "poll") if source == "pushed" else ("poll",))
        assert not [secret for secret in stage.secrets if secret in json.dumps(payload)]


async def test_only_what_is_wanted_fires(stage: AirflowStage, scene: Scene, source: str) -> None:
    async with scene.triggerer() as triggerer:
        triggerer.start("failures", statuses=["failed", "cancelled"], job_types=["sync", "reset"])
        triggerer.start("successes", statuses="succeeded", job_types=[])
        await scene.watched(2)
        ends = [("failed", "sync"), ("succeeded", "sync"), ("cancelled", "sync"), ("failed", "refresh")]
        jobs = []
        for status, job_type in ends:
            jobs.append(job := stage.start(job_type))
            stage.end(job, status)
        async with shared_hub(HubKey("airbyte_default")) as shared:
            # A cancelled sync is announced by nobody: the next look finds it.
            await shared.hub.poll()
        await stage.until(lambda: len(triggerer.fired) >= 3)
        assert set(triggerer.jobs("failures")) == {jobs[0].id, jobs[2].id}
        assert triggerer.jobs("successes") == [jobs[1].id]


@pytest.mark.parametrize("job_type", ["clear", "reset"])
async def test_a_clear_fires_as_the_reset_that_airbyte_reports(
    stage: AirflowStage, scene: Scene, job_type: str
) -> None:
    async with scene.triggerer() as triggerer:
        triggerer.start("cleared", job_types=[job_type])
        await scene.watched()
        stage.end(stage.start("sync"))
        job = stage.end(stage.start("reset"))
        async with shared_hub(HubKey("airbyte_default")) as shared:
            await shared.hub.poll()
        await stage.until(lambda: bool(triggerer.fired))
        assert [(each["job_id"], each["job_type"]) for _, each in triggerer.fired] == [(job.id, "reset")]


async def test_a_failure_has_its_reason(stage: AirflowStage, scene: Scene, listener: Running) -> None:
    async with scene.triggerer() as triggerer:
        triggerer.start("orders", statuses="failed")
        await scene.watched()
        stage.end(stage.start(), "failed", error=JobError(message="no such table", origin="source"))
        await stage.until(lambda: bool(triggerer.fired))
        assert triggerer.fired[0][1]["error"] == {"message": "no such table", "type": None, "origin": "source"}


async def test_what_had_ended_before_the_first_watch_does_not_fire(
    stage: AirflowStage, scene: Scene, source: str
) -> None:
    old = stage.end(stage.start())
    # Airbyte's times are in whole seconds.
    old.updated_at = old.updated_at.replace(year=2020)
    async with scene.triggerer("orders") as triggerer:
        job = stage.end(stage.start())
        await stage.until(lambda: bool(triggerer.fired))
        assert triggerer.jobs() == [job.id]


async def test_fifty_watchers_are_one_stream_and_one_hub(stage: AirflowStage, scene: Scene, listener: Running) -> None:
    connections = [stage.start_elsewhere().connection for _ in range(50)]
    async with scene.triggerer() as triggerer:
        for number, connection in enumerate(connections):
            triggerer.start(f"asset {number}", connection_ids=connection.id)
        await scene.watched(50)
        assert len(triggerer.streams._groups) == 1
        for connection in connections:
            stage.end(connection.jobs[0])
        await stage.until(lambda: len(triggerer.fired) == 50)
        assert sorted(triggerer.fired, key=lambda each: each[1]["job_id"]) == [
            each
            for number, connection in enumerate(connections)
            for each in triggerer.fired
            if each[0] == f"asset {number}" and each[1]["job_id"] == connection.jobs[0].id
        ]
        # The listener's and the hub's.
        assert stage.requests("POST /applications/token") <= 2


async def test_i5_a_stop_between_the_event_and_its_storing_repeats_it(
    stage: AirflowStage, scene: Scene, source: str
) -> None:
    async with scene.triggerer("orders") as triggerer:
        first = stage.end(stage.start())
        await scene.saved(first.id)
        triggerer.storing = False
        second = stage.end(stage.start())
        await stage.until(lambda: triggerer.jobs() == [first.id, second.id])
    # It died before Airflow had stored the second.
    async with scene.triggerer("orders") as triggerer:
        await stage.until(lambda: bool(triggerer.fired))
        await scene.saved(second.id)
        third = stage.end(stage.start())
        await stage.until(lambda: len(triggerer.fired) >= 2)
        assert triggerer.jobs() == [second.id, third.id]


async def test_i5_what_ends_while_no_triggerer_is_there_fires_later_and_once(
    stage: AirflowStage, scene: Scene, source: str
) -> None:
    async with scene.triggerer("orders") as triggerer:
        first = stage.end(stage.start())
        await scene.saved(first.id)
    missed = []
    for status in ("succeeded", "failed", "succeeded"):
        missed.append(job := stage.start())
        stage.end(job, status)
    async with scene.triggerer("orders") as triggerer:
        await scene.saved(missed[0].id, missed[2].id)
        assert sorted(triggerer.jobs()) == [missed[0].id, missed[2].id]
    async with scene.triggerer("orders") as triggerer:
        last = stage.end(stage.start())
        await scene.saved(last.id)
        assert triggerer.jobs() == [last.id]


async def test_i5_a_death_before_the_first_event_loses_none(stage: AirflowStage, scene: Scene, source: str) -> None:
    async with scene.triggerer("orders"):
        pass
    job = stage.end(stage.start())
    async with scene.triggerer("orders") as triggerer:
        await stage.until(lambda: triggerer.jobs() == [job.id])


async def test_i5_each_watcher_goes_on_where_it_was_though_it_joins_late(
    stage: AirflowStage, scene: Scene, source: str
) -> None:
    async with scene.triggerer("orders", "all"):
        pass
    missed = stage.end(stage.start())
    async with scene.triggerer("orders") as triggerer:
        await scene.saved(missed.id)
        # The other comes when the stream has long moved on.
        triggerer.start("all")
        await stage.until(lambda: triggerer.jobs("all") == [missed.id])
        assert triggerer.jobs("orders") == [missed.id]


async def test_a_watcher_that_fails_costs_the_others_nothing(
    stage: AirflowStage, scene: Scene, listener: Running
) -> None:
    async with scene.triggerer("orders", "all", ack_timeout=0.5) as triggerer:
        triggerer.storing = False
        job = stage.end(stage.start())
        await stage.until(lambda: len(triggerer.fired) == 2)
        # Only what came of the first is stored; the other's time runs out.
        bound = triggerer.fired[0][0]
        triggerer.streams.confirm_persisted(triggerer.unstored[:1])
        late = "all" if bound == "orders" else "orders"
        with pytest.raises(shared_stream.AckTimeout):
            await triggerer.tasks.pop(late)
        triggerer.storing = True
        # Airflow starts it again.
        triggerer.start(late, **({"connection_ids": stage.connection_id} if late == "orders" else {}))
        await stage.until(lambda: len(triggerer.fired) == 3)
        following = stage.end(stage.start())
        await stage.until(lambda: len(triggerer.fired) == 5)
        assert triggerer.jobs(bound) == [job.id, following.id]
        assert triggerer.jobs(late) == [job.id, job.id, following.id]


async def test_i6_more_ends_at_once_than_airflow_has_room_for(stage: AirflowStage, scene: Scene) -> None:
    async with scene.triggerer("all"):
        pass
    jobs = [stage.start_elsewhere() for _ in range(150)]
    for job in jobs:
        stage.end(job)
    stage.monkeypatch.setenv("AIRFLOW__TRIGGERER__SHARED_STREAM_SUBSCRIBER_QUEUE_SIZE", "8")
    async with scene.triggerer("all", max_subscriber_queue=8) as triggerer:
        await stage.until(lambda: len(triggerer.fired) == 150)
        assert sorted(triggerer.jobs("all")) == [job.id for job in jobs]
        assert not triggerer.tasks["all"].done()
        await scene.saved(*(job.id for job in jobs))


async def test_i4_a_listener_that_goes_and_comes_back(stage: AirflowStage, scene: Scene, listener: Running) -> None:
    async with scene.triggerer("orders") as triggerer, shared_hub(HubKey("airbyte_default")) as shared:
        ended = []

        async def end_one() -> None:
            ended.append(job := stage.start())
            stage.end(job)
            await stage.until(lambda: job.id in triggerer.jobs())

        await end_one()
        stage.sim.workspace.set_webhook(None)
        await listener.stop()
        await stage.until(lambda: not shared.hub.following)
        await end_one()
        async with scene.reborn(listener):
            await scene.joined(shared.hub)
            await end_one()
        await end_one()
        assert triggerer.jobs() == [job.id for job in ended]


async def test_i4_an_end_while_the_feed_is_away_is_found_when_it_is_back(
    stage: AirflowStage, scene: Scene, listener: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Polling does not begin in this test.
    monkeypatch.setenv("AIRFLOW__AIRBYTE_EVENTS__FALLBACK_AFTER", "60")
    async with scene.triggerer("orders") as triggerer, shared_hub(HubKey("airbyte_default")) as shared:
        stage.sim.workspace.set_webhook(None)
        await listener.stop()
        await stage.until(lambda: not shared.hub.following)
        job = stage.end(stage.start())
        # With an empty store, so its cursors are others.
        async with scene.reborn(listener):
            await stage.until(lambda: bool(triggerer.fired))
            following = stage.end(stage.start())
            await stage.until(lambda: len(triggerer.fired) == 2)
            assert triggerer.jobs() == [job.id, following.id]


async def test_i4_airbyte_in_trouble_is_waited_for(stage: AirflowStage, scene: Scene) -> None:
    stage.sim.add_fault(Fault(kind="status", status=500, count=2))
    async with scene.triggerer("orders") as triggerer:
        stage.sim.add_fault(Fault(kind="status", status=503, count=2))
        job = stage.end(stage.start())
        await stage.until(lambda: triggerer.jobs() == [job.id])


async def test_i4_a_missing_airflow_connection_is_waited_for(
    stage: AirflowStage, scene: Scene, capfd: pytest.CaptureFixture[str]
) -> None:
    async with scene.triggerer() as triggerer:
        stage.monkeypatch.delenv("AIRFLOW_CONN_AIRBYTE_DEFAULT")
        triggerer.start("orders")
        await anyio.wait_all_tasks_blocked()
        stage.connect_airbyte()
        await scene.watched()
        stage.end(job := stage.start())
        await stage.until(lambda: triggerer.jobs() == [job.id])


async def test_i4_a_hub_that_ends_is_replaced(stage: AirflowStage, scene: Scene) -> None:
    async with scene.triggerer("orders") as triggerer:
        await stage.end_hubs()
        stage.end(job := stage.start())
        await stage.until(lambda: triggerer.jobs() == [job.id])
        stage.end(following := stage.start())
        await stage.until(lambda: triggerer.jobs() == [job.id, following.id])


async def test_i4_state_that_can_not_be_written_costs_no_event(stage: AirflowStage, scene: Scene) -> None:
    async with scene.triggerer("orders") as triggerer:
        scene.supervisor.away = True
        stage.end(job := stage.start())
        await stage.until(lambda: triggerer.jobs() == [job.id])
        scene.supervisor.away = False
        stage.end(following := stage.start())
        # Both are kept with the next.
        await scene.saved(job.id, following.id)


async def test_a_workspace_is_found_out_once_for_each_connection(
    stage: AirflowStage, scene: Scene, source: str
) -> None:
    other = stage.sim.world.add_workspace("another")
    foreign = stage.sim.world.add_connection(stage.start_elsewhere().script, workspace_id=other.id)
    async with scene.triggerer() as triggerer:
        triggerer.start("orders", workspace_ids=stage.sim.workspace.id.upper())
        await scene.watched()
        jobs = []
        for _ in range(2):
            job = stage.sim.world.start_job(foreign)
            stage.end(job)
            jobs.append(job := stage.start())
            stage.end(job)
        await stage.until(lambda: len(triggerer.fired) == 2)
        # The webhooks of two connections overtake each other.
        assert sorted(triggerer.jobs()) == [job.id for job in jobs]
        assert {payload["workspace_id"] for _, payload in triggerer.fired} == {stage.sim.workspace.id}
        # The listener names a connection that a poll finds before its webhook, likewise once.
        assert stage.requests("GET /connections/{id}") <= 2


async def test_i5_a_proxys_404_takes_no_connection_out_of_its_workspace(
    stage: AirflowStage, scene: Scene, source: str
) -> None:
    stage.sim.add_fault(Fault(kind="html", status=404, route="GET /connections/{id}", count=1))
    async with scene.triggerer() as triggerer:
        triggerer.start("orders", workspace_ids=stage.sim.workspace.id)
        await scene.watched()
        stage.end(job := stage.start())
        await stage.until(lambda: triggerer.jobs() == [job.id])


async def test_another_airbytes_listener_is_left(
    stage: AirflowStage, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    from airbyte_events.simulator import Script, Simulator, serve_simulator

    other = Simulator(client_id="client", client_secret=stage.secrets[0])
    foreign = other.world.add_connection(Script.hanging())
    async with serve_simulator(other):
        stage_of_other = type(stage)(sim=other, connection_id=foreign.id, monkeypatch=stage.monkeypatch)
        async with stage_of_other.listener() as served:
            stage.connect_listener(served.url)
            async with scene.triggerer() as triggerer:
                triggerer.start("all")
                await scene.watched()
                async with shared_hub(HubKey("airbyte_default")) as shared:
                    await stage.until(lambda: shared.hub.following)
                # One may be of a workspace that only the listener sees, but not three and no other.
                for _ in range(3):
                    other.world.end_job(other.world.start_job(foreign), "succeeded")
                await stage.until(lambda: "polling instead" in caplog.text)
                stage.end(job := stage.start())
                await stage.until(lambda: bool(triggerer.fired))
                assert [payload["connection_id"] for _, payload in triggerer.fired] == [job.connection.id]

"""The message-queue provider, by common.messaging's own trigger."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module
from typing import Any

import pytest

msg_queue = pytest.importorskip("airflow.providers.common.messaging.triggers.msg_queue")

from airbyte_events_provider.get_provider_info import get_provider_info  # noqa: E402
from airbyte_events_provider.queues.airbyte import AirbyteEventsMessageQueueProvider  # noqa: E402
from airbyte_events_provider.triggers.airbyte import AirbyteSyncEventTrigger  # noqa: E402
from airbyte_events_provider.waiting.shared_hub import HubKey, shared_hub  # noqa: E402
from support.airflow_stage import AirflowStage  # noqa: E402

CONNECTION = "2f3c6b0e-2f8e-4f0e-9d3a-0a1b2c3d4e5f"


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider, whether or not the installed metadata has it yet."""
    monkeypatch.setattr(msg_queue, "MESSAGE_QUEUE_PROVIDERS", [AirbyteEventsMessageQueueProvider()])


def test_it_is_what_airflow_is_told() -> None:
    (path,) = get_provider_info()["queues"]
    module, _, name = path.rpartition(".")
    assert getattr(import_module(module), name) is AirbyteEventsMessageQueueProvider


@pytest.mark.usefixtures("ours")
def test_by_scheme() -> None:
    given: dict[str, Any] = {"connection_ids": [CONNECTION], "statuses": ["failed"], "airbyte_conn_id": "other"}
    trigger = msg_queue.MessageQueueTrigger(scheme="airbyte-events", **given)
    assert trigger.serialize() == AirbyteSyncEventTrigger(**given).serialize()


@pytest.mark.usefixtures("ours")
@pytest.mark.filterwarnings("ignore:The `queue` parameter")
@pytest.mark.parametrize(
    ("queue", "arguments"),
    [
        ("airbyte-events://", {}),
        ("airbyte-events://airbyte_default", {}),
        (
            f"airbyte-events://My_Airbyte?connection_id={CONNECTION}&status=succeeded&status=failed&job_type=reset",
            {
                "airbyte_conn_id": "My_Airbyte",
                "connection_ids": CONNECTION,
                "statuses": ["failed", "succeeded"],
                "job_types": "reset",
            },
        ),
        (
            "airbyte-events://airbyte_default?workspace_id=w&listener_conn_id=&poll_interval=2.5",
            {"workspace_ids": "w", "listener_conn_id": "", "poll_interval": 2.5},
        ),
    ],
)
def test_by_queue(queue: str, arguments: dict[str, Any]) -> None:
    trigger = msg_queue.MessageQueueTrigger(queue=queue)
    assert trigger.serialize() == AirbyteSyncEventTrigger(**arguments).serialize()


@pytest.mark.parametrize(
    ("queue", "complaint"),
    [
        ("airbyte-events://a?conection_id=1", "the queue has no parameter conection_id"),
        ("airbyte-events://a?poll_interval=1&poll_interval=2", "or has it twice"),
        ("airbyte-events://a/b", "write airbyte-events://"),
    ],
)
def test_a_queue_that_is_wrong_says_so(queue: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        AirbyteEventsMessageQueueProvider().trigger_kwargs(queue)


def test_other_queues_are_left_to_others() -> None:
    provider = AirbyteEventsMessageQueueProvider()
    assert not provider.queue_matches("kafka://localhost/topic")
    assert not provider.queue_matches("https://sqs.us-east-1.amazonaws.com/1/airbyte-events")
    assert not provider.scheme_matches("kafka")


@pytest.mark.anyio
@pytest.mark.usefixtures("ours")
async def test_it_fires(stage: AirflowStage) -> None:
    trigger = msg_queue.MessageQueueTrigger(scheme="airbyte-events", connection_ids=stage.connection_id)
    events = trigger.run()

    async def fire() -> dict[str, Any]:
        payload: dict[str, Any] = json.loads(json.dumps((await anext(events)).payload))
        return payload

    firing = asyncio.get_running_loop().create_task(fire())
    async with shared_hub(HubKey("airbyte_default")) as shared:
        await stage.until(lambda: shared.hub.followers == 1)
    job = stage.end(stage.start())
    assert (await firing)["job_id"] == job.id
    await events.aclose()

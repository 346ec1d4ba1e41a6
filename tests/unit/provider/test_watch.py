"""What Airflow stores of a watch."""

from __future__ import annotations

import json
from importlib import import_module

import pytest

from airbyte_events_provider.triggers.airbyte import AirbyteSyncEventTrigger
from airbyte_events_provider.triggers.producer import SHARES_STREAMS


def test_a_watch_is_made_again_from_what_airflow_stores() -> None:
    trigger = AirbyteSyncEventTrigger(connection_ids=["b", "a", "b"], workspace_ids="W", listener_conn_id="")
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    assert getattr(import_module(module), name) is AirbyteSyncEventTrigger
    again = AirbyteSyncEventTrigger(**json.loads(json.dumps(kwargs)))
    assert again.serialize() == (path, kwargs)
    assert (kwargs["connection_ids"], kwargs["statuses"]) == (["a", "b"], ["succeeded"])


def test_the_same_filters_are_the_same_watch() -> None:
    one = AirbyteSyncEventTrigger(connection_ids=["a", "b"], statuses=("failed", "succeeded"))
    other = AirbyteSyncEventTrigger(connection_ids=("b", "a"), statuses=["succeeded", "failed"])
    assert one.serialize() == other.serialize()
    hashes = {AirbyteSyncEventTrigger.hash(*each.serialize()) for each in (one, other)}
    assert len(hashes) == 1


def test_watches_of_one_airbyte_share_a_stream() -> None:
    keys = {AirbyteSyncEventTrigger(connection_ids=each).shared_stream_key() for each in ("a", ["b", "c"], None)}
    assert len(keys) == 1
    other = AirbyteSyncEventTrigger("another").shared_stream_key()
    assert (other in keys) is not SHARES_STREAMS


@pytest.mark.parametrize("status", ["running", "success", ""])
def test_a_status_that_no_job_ends_with(status: str) -> None:
    with pytest.raises(ValueError, match="write succeeded, failed or cancelled"):
        AirbyteSyncEventTrigger(statuses=status)

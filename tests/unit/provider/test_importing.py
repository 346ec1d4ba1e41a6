"""What a triggerer imports on the event loop that all its triggers share, and what in a thread."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import asyncio, gc, json, sys, threading, time

import airflow.triggers.base

imported = []

class Recorder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.startswith("airbyte_events"):
            on_the_loop = threading.current_thread() is threading.main_thread()
            imported.append((name, on_the_loop, gc.get_freeze_count() > 0))

sys.meta_path.insert(0, Recorder)
from airbyte_events_provider.triggers.airbyte import (
    AirbyteConnectionSyncTrigger, AirbyteStartTrigger, AirbyteSyncEventTrigger, AirbyteSyncTrigger
)
by_classes = [name for name, *_ in imported]

async def main():
    until = time.time() + 600
    for conn_id, trigger in {
        "one": AirbyteSyncEventTrigger("one"),
        "two": AirbyteSyncTrigger(17, "two", until, 3),
        "three": AirbyteConnectionSyncTrigger("uuid", "three", "2024-01-01", until, 3),
        "four": AirbyteStartTrigger("uuid", "four"),
    }.items():
        running = asyncio.create_task(anext(trigger.run()))
        # There is no such Airflow connection.
        while not [task for task in asyncio.all_tasks() if task.get_name() == f"hub of {conn_id}"]:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])

asyncio.run(main())
print(json.dumps([by_classes, imported[len(by_classes):]]))
"""


def test_a_triggerer_imports_what_its_triggers_do_in_a_thread() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    by_classes, by_triggers = json.loads(done.stdout.splitlines()[-1])
    # Airflow imports the classes on the loop.
    assert [name for name in by_classes if not name.startswith("airbyte_events_provider")] == []
    assert "airbyte_events.hub.hub" in [name for name, *_ in by_triggers]
    # A watcher checks its statuses when it is created, and imports no more for that.
    values = ("airbyte_events.events", "airbyte_events._utils")
    on_the_loop = [name for name, here, _ in by_triggers if here and name != "airbyte_events"]
    assert [name for name in on_the_loop if not name.startswith(values)] == []
    # Else the garbage collector would look through Airflow's own objects meanwhile, and block all threads.
    assert [name for name, here, frozen in by_triggers if not here and not frozen] == []

"""What a triggerer imports on the event loop that all its triggers share, and what in a thread."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import asyncio, json, sys, threading, time

import airflow.triggers.base

imported = []

class Recorder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.startswith("airbyte_events"):
            imported.append((name, threading.current_thread() is threading.main_thread()))

sys.meta_path.insert(0, Recorder)
from airbyte_events_provider.triggers.airbyte import (
    AirbyteConnectionSyncTrigger, AirbyteStartTrigger, AirbyteSyncTrigger
)
by_classes = [name for name, _ in imported]

async def main():
    until = time.time() + 600
    for trigger in (
        AirbyteSyncTrigger(17, "missing", until, 3),
        AirbyteConnectionSyncTrigger("uuid", "missing", "2024-01-01", until, 3),
        AirbyteStartTrigger("uuid", "missing"),
    ):
        running = asyncio.create_task(anext(trigger.run()))
        while not [task for task in asyncio.all_tasks() if task.get_name() == "hub of missing"]:
            await asyncio.sleep(0.01)
        running.cancel()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            await asyncio.wait([task])

asyncio.run(main())
print(json.dumps([by_classes, imported[len(by_classes):]]))
"""


def test_a_triggerer_imports_what_its_triggers_do_in_a_thread() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    by_classes, by_triggers = json.loads(done.stdout.splitlines()[-1])
    # Airflow imports the classes on the loop.
    assert [name for name in by_classes if not name.startswith("airbyte_events_provider")] == []
    assert "airbyte_events.hub.hub" in [name for name, _ in by_triggers]
    assert [name for name, on_the_loop in by_triggers if on_the_loop] == []

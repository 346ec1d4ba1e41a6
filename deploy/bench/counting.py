"""The command line of airbyte-events in a process that counts what it has SQLite do::

    COUNTS=FILE python counting.py serve

The file has the number of ``statements`` and of ``commits`` so far, as JSON.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from airbyte_events.cli.main import main

EVERY = 0.1

counts = {"statements": 0, "commits": 0}
connect = sqlite3.connect


def connect_counted(*args: Any, **kwargs: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = connect(*args, **kwargs)
    changed = 0

    def note(statement: str) -> None:
        nonlocal changed
        counts["statements"] += 1
        # The end of a transaction that only read syncs nothing. SQLite calls this before it executes the statement.
        if statement == "COMMIT" and connection.total_changes != changed:
            counts["commits"] += 1
            changed = connection.total_changes

    connection.set_trace_callback(note)
    return connection


def write(path: Path) -> None:
    while True:
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(counts))
        part.replace(path)
        time.sleep(EVERY)


if __name__ == "__main__":
    if "COUNTS" in os.environ:
        sqlite3.connect = connect_counted  # type: ignore[assignment]
        threading.Thread(target=write, args=(Path(os.environ["COUNTS"]),), daemon=True).start()
    main()

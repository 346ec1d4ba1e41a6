"""What Airflow gives a running task."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


def uuid7(after: float = 0) -> uuid.UUID:
    """The id of a task instance that Airflow prepares so many seconds from now."""
    return uuid.UUID(int=int((time.time() + after) * 1000) << 80 | 7 << 76 | 2 << 62 | 17)


@dataclass
class TaskInstance:
    try_number: int = 1
    max_tries: int = 0
    id: uuid.UUID = field(default_factory=uuid7)
    dag_id: str = "orders"
    task_id: str = "sync"
    run_id: str = "run"
    map_index: int | None = -1
    task: None = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    first_reschedule: datetime | None = None

    def get_first_reschedule_date(self, context: Any) -> datetime | None:
        return self.first_reschedule

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))


class StateStore(dict[str, Any]):
    """As Airflow 3.3 keeps it for a task instance."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)

"""A reader of the listener's feed, in a thread: what is published is seen here as any other process sees it."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from typing import Self


class FeedReader:
    """Notes when the ends of jobs come by, from entering to leaving, as long as there is a listener.

    Leave it after the listener has stopped: a stream that is open ends with the listener, or at its next frame only.

    :param url: the listener's.
    :param token: one of its API tokens.
    """

    def __init__(self, url: str, token: str) -> None:
        self.seen: dict[int, datetime] = {}
        """When a job's terminal event came, by job id."""
        # A bookmark comes at least every 15 seconds.
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60.0, trust_env=False
        )
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._read, name="feed", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._left.set()
        self._thread.join(20)
        self._client.close()

    def _read(self) -> None:
        headers = {"Accept": "text/event-stream"}
        while not self._left.is_set():
            try:
                with self._client.stream("GET", "/v1/events?terminal=true", headers=headers) as stream:
                    for line in stream.raise_for_status().iter_lines():
                        self._note(line, datetime.now(UTC))
                        if self._left.is_set():
                            return
            except httpx.HTTPError:
                self._left.wait(0.2)

    def _note(self, line: str, now: datetime) -> None:
        if line.startswith("data:"):
            data = json.loads(line.removeprefix("data:"))
            if isinstance(data, dict) and isinstance(data.get("data"), dict):
                self.seen.setdefault(data["data"]["job_id"], now)

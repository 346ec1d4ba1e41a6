"""The log of calls to the public API: counts by route, and the latest calls."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import anyio

from airbyte_events._utils.times import format_time, utcnow

KEPT = 10_000
"""The number of calls kept; older ones are only counted."""


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One call of the public API.

    :param route: as ``GET /jobs/{id}``, whatever the base path.
    :param monotonic: the event loop's clock at arrival.
    :param job_id: the job in the path, or in the body of the internal API's call for a job.
    :param status: of the response; None: none yet.
    :param seconds: from arrival to response.
    :param faults: the ids of the faults injected.
    """

    number: int
    at: datetime
    monotonic: float
    method: str
    route: str
    path: str
    query: str
    job_id: int | None
    status: int | None = None
    seconds: float | None = None
    faults: tuple[int, ...] = ()

    def data(self) -> dict[str, Any]:
        return {**asdict(self), "at": format_time(self.at)}


class Traffic:
    """The log of calls."""

    def __init__(self) -> None:
        self.clear()
        self.working = 0
        """Calls in progress."""
        self.waiting = 0
        """Calls that wait for others to finish."""

    def clear(self) -> None:
        self.total = 0
        self.counts: Counter[str] = Counter()
        self._recent: deque[Call] = deque(maxlen=KEPT)

    def arrived(self, method: str, route: str, path: str, query: str, job_id: int | None) -> Call:
        self.total += 1
        self.counts[route] += 1
        call = Call(
            number=self.total,
            at=utcnow(),
            monotonic=anyio.current_time(),
            method=method,
            route=route,
            path=path,
            query=query,
            job_id=job_id,
        )
        self._recent.append(call)
        return call

    def recent(self, route: str | None = None, job_id: int | None = None) -> Iterator[Call]:
        """Return the calls that are kept, the latest first."""
        return (
            call
            for call in reversed(self._recent)
            if (route is None or call.route == route) and (job_id is None or call.job_id == job_id)
        )

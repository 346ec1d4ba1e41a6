"""Detect whether lists without a type contain refreshes: Airbyte up to 2.0 leaves them out."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta

import anyio

from airbyte_events.errors import AirbyteError, AirbyteStatusError, RateLimited, ServerError, Unauthorized
from airbyte_events.jobs import Job, JobPage

logger = logging.getLogger(__name__)

PROBE_SECONDS = 300.0
"""Seconds between two checks for refreshes, while there has never been one."""

REFRESH = "refresh"

_SECOND = timedelta(seconds=1)


class RefreshDetection:
    """Detects whether lists without a type contain refreshes; otherwise a list of refreshes is needed, too.

    Until the first refresh, detection sends a request every :data:`PROBE_SECONDS`. After it, each list needs one more
    request, or none.

    :param list_jobs: :meth:`~airbyte_events.airbyte.AirbyteClient.list_jobs`.
    """

    def __init__(self, list_jobs: Callable[..., Awaitable[JobPage]], *, probe: float = PROBE_SECONDS) -> None:
        self._list_jobs = list_jobs
        self._probe_every = probe
        self._listed: bool | None = None
        self._known: Job | None = None
        self._probed_at = -math.inf

    def update(self, jobs: Iterable[Job], *, untyped_list: bool) -> None:
        """Detect refreshes among jobs that Airbyte returned.

        :param untyped_list: they are from a list without a type.
        """
        refresh = next((job for job in jobs if job.job_type == REFRESH), None)
        if refresh is None:
            return
        self._known = refresh
        if untyped_list:
            self._listed = True

    async def left_out(self) -> tuple[bool, JobPage | None]:
        """Return whether refreshes must be listed separately; request what is needed to detect that.

        :return: that, and a page of all refreshes if the first one has appeared since the last call.
        """
        found: JobPage | None = None
        if self._listed is None:
            try:
                if self._known is None:
                    found = await self._probe()
                if self._known is not None:
                    await self._compare(self._known)
            except AirbyteError as exc:
                logger.info("unknown whether job lists have refreshes: error=%s", exc)
        left_out = self._known is not None and not self._listed
        return left_out, found if left_out else None

    async def _probe(self) -> JobPage | None:
        now, before = anyio.current_time(), self._probed_at
        if now < before + self._probe_every:
            return None
        self._probed_at = now
        try:
            page = await self._list_jobs(job_type=REFRESH, once=True)
        except (RateLimited, ServerError, Unauthorized):
            raise
        except AirbyteStatusError as exc:
            logger.info("this Airbyte has no refreshes: error=%s", exc)
            self._listed = True
            return None
        self.update(page.jobs, untyped_list=False)
        # Refreshes from before the first probe are old.
        return page if page.jobs and before > -math.inf else None

    async def _compare(self, refresh: Job) -> None:
        """Search this refresh in a list without a type."""
        if refresh.started_at is None or refresh.connection_id is None:
            return
        try:
            page = await self._list_jobs(
                connection_id=refresh.connection_id, created_since=refresh.started_at - _SECOND, once=True
            )
            self._listed = any(job.job_id == refresh.job_id for job in page.jobs)
        except ServerError:
            # Some releases can't filter so. To list refreshes separately is always correct.
            self._listed = False
        if not self._listed:
            logger.info("job lists leave out refreshes, as up to Airbyte 2.0: listing them separately")

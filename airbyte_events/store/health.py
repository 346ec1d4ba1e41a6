"""Whether the store can be written, found out by writing: a full disk that nobody writes to looks well otherwise."""

from __future__ import annotations

import logging
import math
import secrets
from typing import Protocol

import anyio

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import StoreError, StoreFull
from airbyte_events.store.base import Maintenance, ValueTable

logger = logging.getLogger(__name__)

CHECK_SECONDS = 5.0
"""From one write to the next while all is well."""

RECHECK_SECONDS = 1.0
"""While it is not, and when in doubt."""

ANSWER_SECONDS = 5.0
"""What takes longer has failed."""

HOPELESS_SECONDS = 600.0
"""A store that could not be written for so long may be within reach of a process that is started anew, with the
addresses, secrets and disks of now. Failovers and most maintenance take less."""

ROOM = 512 * 1024
"""Bytes for which there has to be room once there was none: the largest notification. There is always some for less."""


class CheckedStore(Maintenance, ValueTable, Protocol):
    """The parts of a store that are written to find out whether it can be."""


class StoreHealth:
    """Writes to a store now and then, whatever becomes of others' writes.

    Whoever routes requests here by readiness sends none while it fails: no webhook would ever find out that there is
    space again.

    :param store: an open store.
    :param every: see :data:`CHECK_SECONDS`.
    :param again: see :data:`RECHECK_SECONDS`.
    :param hopeless: see :data:`HOPELESS_SECONDS`.
    """

    def __init__(
        self,
        store: CheckedStore,
        *,
        every: float = CHECK_SECONDS,
        again: float = RECHECK_SECONDS,
        hopeless: float = HOPELESS_SECONDS,
    ) -> None:
        self.writable = True
        """Whether the last write succeeded."""
        self._store = store
        self._every = every
        self._again = again
        self._hopeless = hopeless
        self._failing_since = math.inf
        self._in_doubt = False
        self._doubted = Wakeup()

    @property
    def hopeless(self) -> bool:
        """Whether a restart is worth trying. For want of space it is not: the next process finds no more of it."""
        return anyio.current_time() - self._failing_since >= self._hopeless

    def doubt(self) -> None:
        """Somebody could not write: look soon, and for room."""
        self._in_doubt = True
        self._doubted.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self.check()
            await anyio.sleep(self._again)
            if self.writable:
                with anyio.move_on_after(self._every - self._again):
                    await self._doubted.wait()

    async def check(self) -> bool:
        """Write once.

        :return: whether that succeeded.
        """
        doubted = self._in_doubt or not self.writable
        self._in_doubt = False
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                if doubted:
                    await self._store.remember("room", secrets.token_hex(ROOM // 2))
                    await self._store.remember("room", "")
                await self._store.check()
        except (StoreError, TimeoutError) as exc:
            if self.writable:
                logger.error("the store can't be written, webhooks are refused: %s", str(exc) or "it gives no answer")
            self.writable = False
            full = isinstance(exc, StoreFull)
            self._failing_since = math.inf if full else min(self._failing_since, anyio.current_time())
        else:
            if not self.writable:
                logger.info("the store can be written again")
            self.writable = True
            self._failing_since = math.inf
        return self.writable

"""Check that the store can be written, by writing: a full disk is not detected otherwise."""

from __future__ import annotations

import logging
import math
import secrets
from dataclasses import KW_ONLY, dataclass, field

import anyio

from airbyte_events._utils.wakeup import Wakeup
from airbyte_events.errors import StoreError, StoreFull
from airbyte_events.store.base import EventStore

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
"""A slower write has failed."""

PROBE_BYTES = 512 * 1024
"""Size of the write that checks whether a full store has space again: the largest notification."""


@dataclass(eq=False)
class StoreHealth:
    """A periodic check that writes to an open store.

    While the listener is not ready it receives no webhooks, so only this check detects that the store works again.
    """

    store: EventStore
    _: KW_ONLY
    every: float = 5.0
    """Seconds between two checks while the store can be written."""
    again: float = 1.0
    """The same while it can't, or after another write failed."""
    restart_after: float = 600.0
    """After so many seconds a restart may help, with current addresses, secrets and disks. Failovers and most
    maintenance take less."""
    writable: bool = field(default=True, init=False)
    """Whether the last write succeeded."""
    _failing_since: float = field(default=math.inf, init=False)
    _write_failed: bool = field(default=False, init=False)
    _wake: Wakeup = field(default_factory=Wakeup, init=False)

    @property
    def needs_restart(self) -> bool:
        """Whether a restart may help. It does not if the store is full."""
        return anyio.current_time() - self._failing_since >= self.restart_after

    def check_soon(self) -> None:
        """Check soon, and whether the store is full, after a write failed."""
        self._write_failed = True
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self.check()
            await anyio.sleep(self.again)
            if self.writable:
                with anyio.move_on_after(self.every - self.again):
                    await self._wake.wait()

    async def check(self) -> bool:
        """Write once and return whether that succeeded."""
        probe = self._write_failed or not self.writable
        self._write_failed = False
        try:
            with anyio.fail_after(TIMEOUT_SECONDS):
                if probe:
                    await self.store.remember("room", secrets.token_hex(PROBE_BYTES // 2))
                    await self.store.remember("room", "")
                await self.store.check()
        except (StoreError, TimeoutError) as exc:
            if self.writable:
                logger.error("the store can't be written, webhooks are refused: %s", str(exc) or "no response")
            self.writable = False
            full = isinstance(exc, StoreFull)
            self._failing_since = math.inf if full else min(self._failing_since, anyio.current_time())
        else:
            if not self.writable:
                logger.info("the store can be written again")
            self.writable = True
            self._failing_since = math.inf
        return self.writable

"""Leases within one process, for stores that no other process shares."""

from __future__ import annotations

from airbyte_events.errors import LeaseLost
from airbyte_events.store.records import Lease


class Leases:
    """Leases by a clock that the caller reads. They need not outlive the process if no other can open the store."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Lease, float]] = {}
        self._fences: dict[str, int] = {}

    def acquire(self, name: str, holder: str, now: float, seconds: float) -> Lease | None:
        lease, until = self._held.get(name, (None, now))
        if lease is None or lease.holder != holder:
            if until > now:
                return None
            self._fences[name] = self._fences.get(name, 0) + 1
            lease = Lease(name=name, holder=holder, fence=self._fences[name])
        self._held[name] = (lease, now + seconds)
        return lease

    def release(self, lease: Lease) -> None:
        if self._holds(lease):
            del self._held[lease.name]

    def revoke(self) -> None:
        """Revoke all leases: writes with them are refused."""
        self._held.clear()

    def holders(self, now: float) -> dict[str, str]:
        return {name: lease.holder for name, (lease, until) in self._held.items() if until > now}

    def ensure(self, lease: Lease | None) -> None:
        """Check a lease, if any. An expired one is held until another holder takes it, as nothing was written since.

        :raises LeaseLost: if it is not held any more.
        """
        if lease is not None and not self._holds(lease):
            raise LeaseLost(f"the lease {lease.name} has passed from {lease.holder} to another")

    def _holds(self, lease: Lease) -> bool:
        held = self._held.get(lease.name)
        return held is not None and held[0] == lease

"""Leases within one process, for stores that no other process shares."""

from __future__ import annotations

from airbyte_events.errors import LeaseLost
from airbyte_events.store.records import Lease


class Leases:
    """Who may do what alone, by a clock that the caller reads.

    They end with the process. That is right where the store is locked against others: whoever held a lease before is
    gone, and nobody has to wait for its end.
    """

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
        """End them all: whoever holds one can't write with it any more."""
        self._held.clear()

    def holders(self, now: float) -> dict[str, str]:
        return {name: lease.holder for name, (lease, until) in self._held.items() if until > now}

    def ensure(self, lease: Lease | None) -> None:
        """One whose time is up is still held until somebody else takes it: nobody can have written meanwhile.

        :raises LeaseLost: if there is a lease, and it is held no more.
        """
        if lease is not None and not self._holds(lease):
            raise LeaseLost(f"the lease {lease.name} has passed from {lease.holder} to another")

    def _holds(self, lease: Lease) -> bool:
        held = self._held.get(lease.name)
        return held is not None and held[0] == lease

"""Waiting for jobs within a process: :class:`Hub`."""

from airbyte_events.hub.hub import Hub

__all__ = ["Hub"]

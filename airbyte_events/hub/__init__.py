"""What a process that waits for jobs embeds: :class:`Hub`."""

from airbyte_events.hub.hub import Hub

__all__ = ["Hub"]

"""The feed on the wire: its codec, and :class:`FeedClient`."""

from airbyte_events.feed.client import FeedClient

__all__ = ["FeedClient"]

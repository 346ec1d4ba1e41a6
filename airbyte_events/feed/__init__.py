"""A listener's feed: server-sent events, and :class:`FeedClient`."""

from airbyte_events.feed.client import FeedClient

__all__ = ["FeedClient"]

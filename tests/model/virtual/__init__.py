"""Airbyte, a listener, a triggerer and readers of the feed, in process and in virtual time."""

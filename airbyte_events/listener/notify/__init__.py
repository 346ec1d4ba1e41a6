"""Outgoing notifications of completed jobs."""

"""Forwarding of Airbyte's notifications to other URLs."""

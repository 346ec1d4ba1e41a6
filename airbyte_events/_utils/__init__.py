"""Utilities without Airbyte-specific code."""

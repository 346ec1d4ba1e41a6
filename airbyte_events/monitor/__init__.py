"""The monitor of one Airbyte instance: polls it, confirms notifications, and writes events."""

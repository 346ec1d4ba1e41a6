"""The listener process."""

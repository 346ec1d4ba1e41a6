"""Where events and notifications are kept."""

"""What the listener answers."""

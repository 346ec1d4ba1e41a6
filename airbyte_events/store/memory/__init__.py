"""A store that lasts as long as its process."""

"""A store in PostgreSQL, which several listeners share."""

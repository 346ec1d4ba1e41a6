"""``webhooks``: have Airbyte send its notifications here."""

"""Job-state events of Airbyte: merged from its webhooks and its API, published to subscribers."""

__version__ = "0.1.0"

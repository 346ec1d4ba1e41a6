"""Airflow connections of an Airbyte or a listener, and HTTP clients for them."""

"""The Airflow connections of an Airbyte and of a listener: read, checked, and made into HTTP clients."""

"""Apache Airflow provider: operators, sensors and triggers that complete by Airbyte's webhooks."""

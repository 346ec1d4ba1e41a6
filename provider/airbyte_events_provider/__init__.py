"""Apache Airflow provider: operators, sensors and triggers that complete on Airbyte's push."""

# Airflow with the provider, for compose.yaml.
FROM apache/airflow:3.3.2
COPY --chown=airflow:0 pyproject.toml README.md LICENSE /src/
COPY --chown=airflow:0 airbyte_events /src/airbyte_events
COPY --chown=airflow:0 provider /src/provider
RUN pip install --no-cache-dir "apache-airflow==${AIRFLOW_VERSION}" /src
COPY --chown=airflow:0 docs/examples /opt/airflow/dags

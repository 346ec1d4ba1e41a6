"""Airflow's plugin."""

"""Stores of events, job states and notifications."""

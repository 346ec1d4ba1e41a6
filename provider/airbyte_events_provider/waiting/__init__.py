"""Waiting for jobs, together with all tasks of a process."""

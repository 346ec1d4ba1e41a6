"""Waiting for jobs, with one hub and one stream for all tasks of a process."""

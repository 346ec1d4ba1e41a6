"""Resuming the job of an earlier try, from a record that the task stores."""

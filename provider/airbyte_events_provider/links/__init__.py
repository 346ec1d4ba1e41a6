"""Links from a task to where its job is shown."""

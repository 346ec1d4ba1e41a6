"""The job that an earlier try has started."""

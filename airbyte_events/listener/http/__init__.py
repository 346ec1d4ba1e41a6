"""The listener's HTTP interface."""

"""What any HTTP server needs."""

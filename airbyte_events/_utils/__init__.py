"""Small pieces without a subject of their own."""

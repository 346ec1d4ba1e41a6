"""What a sync has read and written."""

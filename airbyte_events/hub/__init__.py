"""What a process that waits for jobs embeds."""

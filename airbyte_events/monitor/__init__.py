"""What is known of one Airbyte."""

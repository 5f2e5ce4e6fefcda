"""What starts the broker."""

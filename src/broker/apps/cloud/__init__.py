"""What an instance of the broker is made of, on a laptop or in Google Cloud."""

"""Language models: an adapter a file."""

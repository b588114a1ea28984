"""Text to speech: an adapter a file."""

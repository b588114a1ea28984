"""Text to speech: one adapter per file."""

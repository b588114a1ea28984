"""Speech to text: one adapter per file."""

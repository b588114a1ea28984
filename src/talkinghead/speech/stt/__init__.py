"""Speech to text: an adapter a file."""

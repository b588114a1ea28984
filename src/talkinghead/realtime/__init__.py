"""Live: speech as it comes to frames as they are due."""

"""Decoding beyond reading a file from its start to its end."""

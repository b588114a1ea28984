"""Adapters for text to speech, one per file."""

"""Adapters for speech to text, one per file."""

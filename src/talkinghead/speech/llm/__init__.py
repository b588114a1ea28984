"""Adapters for language models, one per file."""

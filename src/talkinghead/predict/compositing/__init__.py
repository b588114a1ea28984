"""Composite generated mouths into source frames."""

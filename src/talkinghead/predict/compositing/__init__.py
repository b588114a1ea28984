"""Blend generated mouths into source frames."""

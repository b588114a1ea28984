"""Motion of the heads in a photo over time."""

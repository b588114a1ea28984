"""Report files: JSON, CSV, strips of frames and an HTML page."""

"""Real-time streaming."""

"""Real-time streaming: speech in chunks to video frames."""

"""Real-time lip-sync: generate video frames from a stream of speech."""

"""Audio input: audio sources, token streams, lip priors and articulation."""

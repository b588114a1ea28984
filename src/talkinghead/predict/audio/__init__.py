"""Audio in: audio sources, token streams, lip priors and articulation."""

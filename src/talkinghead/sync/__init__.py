"""Audio-video offset and sync embeddings."""

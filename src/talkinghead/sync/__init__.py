"""Measurement of the audio-video offset, and embeddings of a sync expert."""

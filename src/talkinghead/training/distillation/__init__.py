"""Distillation of the Whisper lip prior into a small network."""

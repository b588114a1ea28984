"""Distillation of a lip prior into the audio encoder of a generator."""

"""Inference: a checkpoint, a face and speech to a talking video."""

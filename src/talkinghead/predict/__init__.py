"""Inference: generate a talking video from a checkpoint, a face and speech."""

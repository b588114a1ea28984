"""Streaming input and output of images, video and audio, and time conversions."""

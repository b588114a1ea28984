"""Facial expressions of the faces in a photo."""

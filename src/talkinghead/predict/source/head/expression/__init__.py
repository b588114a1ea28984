"""Facial expressions of the faces in photos and videos."""

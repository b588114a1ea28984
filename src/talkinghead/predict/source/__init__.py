"""Frames in: photos, videos, face tracks, reference frames and head motion."""

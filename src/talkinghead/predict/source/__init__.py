"""Source frames: photos, videos, face tracks, references and head motion."""

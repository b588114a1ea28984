"""Source frames: photos, videos, face tracks, references and idle motion."""

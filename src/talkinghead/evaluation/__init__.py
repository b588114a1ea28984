"""Evaluation of checkpoints and of any system's videos: metrics, scorers and reports."""

"""Scores of a checkpoint: metrics, rebuilt clips and the report."""

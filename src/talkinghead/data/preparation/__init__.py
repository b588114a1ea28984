"""Preparation of corpora from raw videos."""

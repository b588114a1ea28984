"""Preparation of training corpora from raw videos."""

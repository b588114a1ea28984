"""Corpora: preparation, clip files, sampling, augmentation and the data module."""
